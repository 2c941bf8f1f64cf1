"""Episodes that are done, line by line, so that a killed process loses at most the one it was writing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tl_core.data.episodes import Episode
from tl_core.fewshot.metrics import METRICS
from tl_core.fewshot.results import EpisodeResult
from tl_core.files import disk_full_as_input_error


def append_journal(path: Path, result: EpisodeResult) -> None:
    """Add one episode."""
    record = {
        "episode": result.episode.index,
        "metrics": dict(result.metrics),
        "labels": result.labels.tolist(),
        "predictions": result.predictions.tolist(),
        "confidences": result.confidences.tolist(),
        "seconds": result.seconds,
    }
    with disk_full_as_input_error(path), path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read_journal(path: Path, episodes: Iterable[Episode]) -> Iterator[EpisodeResult]:
    """The results of the first episodes, as far as the journal knows them; the rest of it is cut off."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    intact = 0
    for line, episode in zip(lines, episodes, strict=False):
        try:
            record = json.loads(line)
        except ValueError:
            break  # the line that the killed process was writing
        if (
            not line.endswith(b"\n")
            or record["episode"] != episode.index
            or record.get("metrics", {}).keys() != METRICS.keys()
        ):
            break
        intact += len(line)
        yield EpisodeResult(
            episode=episode,
            metrics=record["metrics"],
            labels=np.array(record["labels"], dtype=np.int64),
            predictions=np.array(record["predictions"], dtype=np.int64),
            confidences=np.array(record["confidences"]),
            seconds=record["seconds"],
        )
    if lines:
        with path.open("r+b") as file:
            file.truncate(intact)
