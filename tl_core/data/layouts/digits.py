"""The embedded data: scikit-learn's handwritten digits as PNG class folders.

A real transfer task that needs no download (1,797 scans of 43 writers, Kaynak 1995): the source is the digits
0-4 under quarter turns, 20 classes; the target is the digits 5-9 upright. No digit is in both.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from tl_core.errors import InputError

PIXELS = 32
QUARTER_TURNS = 4
_SOURCE_DIGITS, _TARGET_DIGITS = range(5), range(5, 10)


def write_digits(spec: str, data_dir: Path) -> Path:
    """Write `digits:source` or `digits:target` below `data_dir` unless it is there, and return its folder."""
    if spec not in ("digits:source", "digits:target"):
        raise InputError(f"expected digits:source or digits:target, got {spec!r}")
    folder = data_dir / spec.replace(":", "-")
    data_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(data_dir / f"{folder.name}.lock"):
        if not folder.is_dir():
            # Written beside and renamed: a reader sees the whole set or none of it.
            with tempfile.TemporaryDirectory(dir=data_dir) as scratch:
                _write_classes(spec, Path(scratch) / folder.name)
                (Path(scratch) / folder.name).replace(folder)
    return folder


def _write_classes(spec: str, folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    source = spec == "digits:source"
    for index, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        if digit not in (_SOURCE_DIGITS if source else _TARGET_DIGITS):
            continue
        picture = np.round(pixels * (255 / 16)).astype(np.uint8)
        for turn in range(QUARTER_TURNS if source else 1):
            class_name = f"digit{digit}-turned{90 * turn}" if source else f"digit{digit}"
            path = folder / class_name / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            turned = Image.fromarray(np.rot90(picture, turn))
            turned.resize((PIXELS, PIXELS), Image.Resampling.BILINEAR).save(path)
