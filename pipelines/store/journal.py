"""Episodes that are done, a line with its checksum each, so that a killed process loses at most the one in work."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tl_core.data.episodes import Episode
from tl_core.fewshot.metrics import METRICS
from tl_core.fewshot.results import EpisodeResult
from tl_core.files import disk_full_as_input_error, line_checksum


def append_journal(path: Path, result: EpisodeResult) -> None:
    """Add one episode."""
    record = {
        "episode": result.episode.index,
        "metrics": dict(result.metrics),
        "labels": result.labels.tolist(),
        "predictions": result.predictions.tolist(),
        "confidences": result.confidences.tolist(),
        "seconds": result.seconds,
        "fell_back": result.fell_back,
    }
    text = json.dumps(record)
    with disk_full_as_input_error(path), path.open("a") as file:
        file.write(f"{line_checksum(text.encode())} {text}\n")


def read_journal(path: Path, episodes: Iterable[Episode]) -> Iterator[EpisodeResult]:
    """The results of the first episodes, as far as the journal knows them; the rest of it is cut off.

    A line that does not hold what was written is said in a warning, but for the last one, which a killed process may
    not have finished: its episode and those after it are computed again.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    intact = 0
    for number, (line, episode) in enumerate(zip(lines, episodes, strict=False), start=1):
        result = _parse(line, episode)
        if result is None:
            if line.endswith(b"\n"):
                print(
                    f"warning: line {number} of {path} is damaged; from there on it is computed again", file=sys.stderr
                )
            break
        intact += len(line)
        yield result
    if lines:
        with path.open("r+b") as file:
            file.truncate(intact)


def _parse(line: bytes, episode: Episode) -> EpisodeResult | None:
    """Result of an episode, None if the line is cut off, changed, of another episode or of another version."""
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum.decode("ascii", "replace") != line_checksum(text):
        return None
    try:
        record = json.loads(text)
        arrays = [np.array(record[name]) for name in ("labels", "predictions", "confidences")]
        if record["episode"] != episode.index or record["metrics"].keys() != METRICS.keys():
            return None
        if any(array.shape != episode.query_rows.shape for array in arrays):
            return None
        labels, predictions = (array.astype(np.int64) for array in arrays[:2])
        seconds, fell_back = float(record["seconds"]), bool(record["fell_back"])
        return EpisodeResult(episode, record["metrics"], labels, predictions, arrays[2], seconds, fell_back)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # of another version, which wrote other fields
