"""A table of predictions that survives interruptions: written in parts, each of them complete or absent.

A part's name holds a digest of the model, the options and the files in it. The same command, given again, finds the
parts that are done and predicts the rest; if files have come, gone or changed in between, the parts that they are in
are predicted anew. So every file is in the table exactly once, and an undisturbed job writes the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnxruntime
import PIL

from serving.batch import Options, predict_batches
from serving.model import OnnxClassifier
from serving.sources import ImageFile, ImageSource
from serving.tables import Prediction, check_kind, columns, join_parts, write_part
from tl_core.errors import InputError
from tl_core.images.decoding import PREPROCESS_VERSION

if sys.platform != "win32":
    import fcntl

PART_FILES = 1024


@dataclass(frozen=True)
class Outcome:
    """Result of a job.

    Attributes:
        files: rows in the table.
        resumed: of these, rows that an earlier, interrupted call had written.
        unreadable: files without answer; the table has their reasons.
        abstained: files whose best class was not probable enough.
        unlike: files that look like none of the classes; None if the model has no threshold for it.
    """

    files: int
    resumed: int
    unreadable: int
    abstained: int
    unlike: int | None = None


def check_output(output: Path) -> None:
    """Raise `InputError` unless a table can be written there: before the work, not after it."""
    check_kind(output)
    if os.path.isdir(output):  # noqa: PTH112 - unlike Path.is_dir, false for a name that is too long
        raise InputError(f"output {output} is a folder; give a file name")
    with _said_in_a_sentence(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output.parent, suffix=f".{output.name}"):
            pass


def write_predictions(
    model: OnnxClassifier,
    source: ImageSource,
    output: Path,
    options: Options,
    progress: Callable[[int], object] = lambda _: None,
) -> Outcome:
    """Predict every file of a source and write the table; continues where an interrupted call stopped.

    Args:
        progress: called with the number of files that were finished since the last call.

    Raises:
        InputError: the output cannot be written, or another process is writing it.
    """
    folder = output.with_name(f".{output.name}.parts")
    # A column for a class that there is not would be empty in every row.
    options = replace(options, top_k=min(options.top_k, len(model.class_names)))
    with _said_in_a_sentence(output), _owned(folder):
        job = _Job(model, options, folder, output.suffix.lower())
        parts = job.run(source, progress)
        scratch = folder / f"joined{output.suffix.lower()}"
        join_parts(parts, scratch, options.top_k, abstains=options.abstains)
        scratch.replace(output)
        counts = Counter[str]()
        for part in parts:
            counts.update(_counts(part))
        shutil.rmtree(folder)
    unlike = None if model.unlike_below is None else counts["unlike"]
    return Outcome(counts["files"], job.resumed, counts["unreadable"], counts["abstained"], unlike)


class _Job:
    """The parts of one table: which are done, and the doing of the others."""

    def __init__(self, model: OnnxClassifier, options: Options, folder: Path, suffix: str) -> None:
        self.resumed = 0
        self._model, self._options, self._folder, self._suffix = model, options, folder, suffix
        answer = {**asdict(options), "workers": None, "model": model.fingerprint, "preprocess": PREPROCESS_VERSION}
        versions = {"PIL": PIL.__version__, "onnxruntime": onnxruntime.__version__}
        self._setting = json.dumps(
            {**answer, **versions, "columns": columns(options.top_k, abstains=options.abstains)}, sort_keys=True
        )
        self._done = {part.name.split(".")[0]: part for part in folder.glob(f"*{suffix}")}

    def run(self, source: ImageSource, progress: Callable[[int], object]) -> list[Path]:
        """Predict what is missing; returns the parts in the order of the files."""
        digests: list[str] = []
        unfinished: deque[tuple[str, int]] = deque()

        def batches() -> Iterator[Sequence[ImageFile]]:
            for files in _chunks(source.files(), PART_FILES):
                digests.append(self._digest(files))
                if digests[-1] in self._done:
                    self.resumed += len(files)
                    progress(len(files))
                else:
                    unfinished.append((digests[-1], len(files)))
                    yield from _chunks(iter(files), self._options.batch_size)

        rows: list[Prediction] = []
        for predictions in predict_batches(self._model, batches(), self._options):
            rows += predictions
            progress(len(predictions))
            if len(rows) == unfinished[0][1]:  # batches end where parts do
                self._write(rows, unfinished.popleft()[0])
                rows = []
        return [self._done[digest] for digest in digests]

    def _digest(self, files: Sequence[ImageFile]) -> str:
        lines = [self._setting, *(f"{file.name}\0{file.stamp()}" for file in files)]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def _write(self, rows: Sequence[Prediction], digest: str) -> None:
        unreadable = sum(bool(row.error) for row in rows)
        abstained = sum(not row.label for row in rows) - unreadable
        scratch = self._folder / f"unfinished{self._suffix}"
        write_part(rows, scratch, self._options.top_k, abstains=self._options.abstains)
        unlike = sum(row.unlike is True for row in rows)
        part = self._folder / f"{digest}.{len(rows)}.{unreadable}.{abstained}.{unlike}{self._suffix}"
        self._done[digest] = scratch.replace(part)


def _counts(part: Path) -> dict[str, int]:
    _, files, unreadable, abstained, unlike, _ = part.name.split(".")
    counts = {"files": files, "unreadable": unreadable, "abstained": abstained, "unlike": unlike}
    return {name: int(count) for name, count in counts.items()}


def _chunks(files: Iterator[ImageFile], size: int) -> Iterator[list[ImageFile]]:
    while chunk := list(itertools.islice(files, size)):
        yield chunk


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the folder of parts against other processes; a process that dies lets go of it."""
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY) if sys.platform != "win32" else None
    try:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        with suppress(OSError):
            folder.rmdir()
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def _said_in_a_sentence(output: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise InputError(f"output {output} is being written by another process; wait for it") from error
    except OSError as error:
        raise InputError(f"output {output} cannot be written ({error.strerror or error})") from error
