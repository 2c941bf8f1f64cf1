"""Predict images: `python -m serving model.onnx images/ predictions.csv`.

Needs onnxruntime, numpy and Pillow, nothing else. Exit code 2 if the input is at fault or any image unreadable.
The same command, given again after an interruption, continues where it stopped.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from serving.answers import score_known
from serving.batch import DEFAULT_BATCH_SIZE, Options
from serving.job import Outcome, check_output, write_predictions
from serving.model import OnnxClassifier
from serving.pictures import draw_album, make_folder
from serving.sources import open_source
from serving.trust import say_trust
from tl_core.errors import InputError

RECOMMENDED = "recommended"
_SECONDS_BETWEEN_LINES = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a console need not have the letters of every name
    given = _parser().parse_args(arguments)
    try:
        check_output(given.output)
        if given.pictures:
            make_folder(given.pictures, given.images)
        model = OnnxClassifier.load(given.model, n_threads=1)
        least = model.recommended_probability if given.min_probability is None else given.min_probability
        options = Options(given.top_k, least, given.batch_size, given.workers)
        with open_source(given.images, given.path_column) as source:
            for notice in source.notices:
                print(f"note: {notice}", file=sys.stderr)
            progress = _Progress(source.count)
            outcome = write_predictions(model, source, given.output, options, progress.add)
            known, drawn = score_known(source, given.output, model), ""
            if given.pictures:
                trust = say_trust(model, known.n_learned)
                drawn = draw_album(source, given.output, model.class_names, given.pictures, model.resize_rule, trust)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    _say(f"{summary(outcome)}: {given.output}", *known.sentences(), *([drawn] if drawn else []))
    return 2 if outcome.unreadable else 0


def _say(*lines: str) -> None:
    """Print the last words; the table is complete, whether anybody reads them or not."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python does on its way out


def summary(outcome: Outcome) -> str:
    """Summarise a job in one line."""
    text = f"{outcome.files:,} images, {outcome.unreadable:,} unreadable"
    text += f", {outcome.abstained:,} without label" if outcome.abstained else ""
    text += "" if outcome.unlike is None else f", {outcome.unlike:,} look like none of the classes"
    return text + (f", {outcome.resumed:,} of an earlier call" if outcome.resumed else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description="Predict what images show.")
    add = parser.add_argument
    add("model", type=Path, help="an .onnx file that `export` wrote")
    add(
        "images",
        help="a folder (at any depth), a glob, a table of paths (csv, tsv, jsonl, parquet), a zip or tar, or one image",
    )
    add("output", type=Path, help="the .csv, .jsonl or .parquet file to write (parquet needs pyarrow)")
    add("--pictures", type=Path, help="a folder for a page to look through and correct them, and pictures")
    add("--top_k", type=_whole_number, default=5, help="classes to list")
    add("--min_probability", type=_probability, default=0.0, help="below it no label is given; or recommended")
    add("--path_column", default="", help="the column of paths in a table; by default image, path, file_name ...")
    add("--batch_size", type=_whole_number, default=DEFAULT_BATCH_SIZE, help="images per call of the model")
    add("--workers", type=_whole_number, default=0, help="batches in work at once; by default one per core")
    return parser


def _whole_number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 10000")
    return number


def _probability(text: str) -> float | None:
    """Read a probability; None is the one that the file recommends."""
    if text == RECOMMENDED:
        return None
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return number


class _Progress:
    """A line now and then: so many done, so fast, so long to go."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._started = self._last = time.monotonic()

    def add(self, n_files: int) -> None:
        """Count finished files."""
        self._done += n_files
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            speed = self._done / (now - self._started)
            left = math.ceil((self._total - self._done) / speed)
            line = f"{self._done:,} of {self._total:,} images, {speed:,.0f} images/s, {left:,} s left"
            print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
