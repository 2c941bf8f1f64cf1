"""Batch inference over image files: decoded by threads while the model runs, every file accounted for."""

from __future__ import annotations

import csv
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.model import OnnxClassifier
from tl_core.errors import InputError
from tl_core.preprocess import UnreadableImageError, decode_image, is_image_name

_BATCHES_AHEAD = 3
_ROWS_PER_GROUP = 10_000


@dataclass(frozen=True)
class Prediction:
    """What one file shows, or why that cannot be said.

    Attributes:
        top: class names with probabilities, most probable first; empty if the file is unreadable.
        error: the reason; empty if the file was read.
    """

    file: str
    top: tuple[tuple[str, float], ...]
    error: str = ""

    def row(self, top_k: int) -> dict[str, str | float]:
        """As a row of a table: file, label, probability, error, then the further ranks."""
        ranks = [*self.top, *[("", float("nan"))] * (top_k - len(self.top))]
        # A name that is no UTF-8 has no place in a table: its strange bytes become question marks.
        file = self.file.encode("utf-8", "replace").decode()
        row: dict[str, str | float] = {"file": file, "label": ranks[0][0], "probability": ranks[0][1]}
        row["error"] = self.error
        for rank, (label, probability) in enumerate(ranks[1:top_k], start=2):
            row |= {f"label_{rank}": label, f"probability_{rank}": probability}
        return row


def find_images(folder: Path) -> list[Path]:
    """Every image file below a folder, sorted.

    Raises:
        InputError: no such folder, or no image in it.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - unlike Path.is_dir, false for a name that is too long
        raise InputError(f"no folder of images at {folder}")
    found = sorted(Path(root, name) for root, _, names in os.walk(folder) for name in names if is_image_name(name))
    if not found:
        raise InputError(f"no images found in {folder}; expected png, jpg, webp or bmp files")
    return found


def predict_files(
    model: OnnxClassifier, files: Sequence[Path], top_k: int = 5, batch_size: int = 64
) -> Iterator[Prediction]:
    """Predict files one batch after the other, in their order; unreadable ones are yielded with their reason."""
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for batch, decoded in _decode_ahead(model, batches, threads):
            images = [array for array in decoded if not isinstance(array, str)]
            # A full batch of readable images or a shorter one: the graph takes any number.
            probabilities = iter(model.predict(np.stack(images)) if images else ())
            for file, outcome in zip(batch, decoded, strict=True):
                if isinstance(outcome, str):
                    yield Prediction(str(file), (), outcome)
                else:
                    yield Prediction(str(file), _top(next(probabilities), model.class_names, top_k))


def write_csv(predictions: Iterable[Prediction], output: Path, top_k: int) -> int:
    """Write predictions as they come, under a temporary name until the last; returns how many were unreadable."""
    unreadable = 0
    scratch = _scratch(output)
    try:
        with scratch.open("w", encoding="utf-8", errors="replace", newline="") as file:
            writer = csv.DictWriter(file, list(Prediction("", ()).row(top_k)))
            writer.writeheader()
            for prediction in predictions:
                writer.writerow(prediction.row(top_k))
                unreadable += bool(prediction.error)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    scratch.replace(output)
    return unreadable


def write_parquet(predictions: Iterable[Prediction], output: Path, top_k: int) -> int:
    """As `write_csv`, but Parquet; needs pyarrow, which serving alone does not install."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    unreadable = 0
    scratch = _scratch(output)
    names = list(Prediction("", ()).row(top_k))
    kinds = [pa.float64() if name.startswith("probability") else pa.string() for name in names]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    try:
        with pq.ParquetWriter(scratch, schema) as writer:
            for rows in _chunks(predictions):
                writer.write_table(pa.Table.from_pylist([row.row(top_k) for row in rows], schema))
                unreadable += sum(bool(row.error) for row in rows)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    scratch.replace(output)
    return unreadable


def check_output(output: Path, suffixes: Sequence[str]) -> None:
    """Raise `InputError` unless a file of one of these kinds can be written there: before the work, not after it."""
    if output.suffix.lower() not in suffixes:
        raise InputError(f"output is {output}; it must end in {' or '.join(suffixes)}")
    if os.path.isdir(output):  # noqa: PTH112
        raise InputError(f"output {output} is a folder; give a file name")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output.parent, suffix=output.name):
            pass
    except OSError as error:
        raise InputError(f"output {output} cannot be written ({error.strerror})") from error


def _scratch(output: Path) -> Path:
    return output.with_name(f".{output.name}.{os.getpid()}.part")


def _chunks(predictions: Iterable[Prediction]) -> Iterator[list[Prediction]]:
    iterator = iter(predictions)
    while chunk := list(itertools.islice(iterator, _ROWS_PER_GROUP)):
        yield chunk


Decoded = NDArray[np.uint8] | str  # pixels, or the reason why there are none


def _decode_ahead(
    model: OnnxClassifier, batches: Sequence[Sequence[Path]], threads: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[Path], list[Decoded]]]:
    """Decode a few batches ahead of the model: enough to keep it busy, few enough to keep memory flat."""
    waiting: deque[tuple[Sequence[Path], list[Future[Decoded]]]] = deque()
    for batch in batches:
        waiting.append((batch, [threads.submit(_decode, model, file) for file in batch]))
        if len(waiting) > _BATCHES_AHEAD:
            done, futures = waiting.popleft()
            yield done, [future.result() for future in futures]
    for done, futures in waiting:
        yield done, [future.result() for future in futures]


def _decode(model: OnnxClassifier, file: Path) -> Decoded:
    try:
        return decode_image(file, model.image_size, model.resize_rule)
    except UnreadableImageError as error:
        return str(error)


def _top(probabilities: NDArray[np.float32], names: Sequence[str], k: int) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")[:k]
    return tuple((names[i], float(probabilities[i])) for i in order)
