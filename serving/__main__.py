"""Predict a folder of images: `python -m serving model.onnx images/ predictions.csv`.

Needs onnxruntime, numpy and Pillow, nothing else. Exit code 2 if the input is at fault or any image unreadable.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from serving.batch import check_output, find_images, predict_files, write_csv
from serving.model import OnnxClassifier
from tl_core.errors import InputError


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving", description="Predict a folder of images.")
    parser.add_argument("model", type=Path, help="an .onnx file that `export` wrote")
    parser.add_argument("images", type=Path, help="a folder with png, jpg, webp or bmp files, at any depth")
    parser.add_argument("output", type=Path, help="the .csv file to write")
    parser.add_argument("--top_k", type=int, choices=range(1, 101), metavar="1..100", default=5, help="classes to list")
    arguments = parser.parse_args()
    try:
        check_output(arguments.output, [".csv"])
        model = OnnxClassifier.load(arguments.model)
        files = find_images(arguments.images)
        unreadable = write_csv(predict_files(model, files, arguments.top_k), arguments.output, arguments.top_k)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(files)} images, {unreadable} unreadable: {arguments.output}")
    return 2 if unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
