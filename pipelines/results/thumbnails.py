"""Small pictures of a data set's images, and their names as text."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_core.data.dataset import ImageDataset
from tl_core.images.files import as_utf8

THUMBNAIL = 160
"""Longest side of a kept picture in pixels."""


def readable_name(dataset: ImageDataset, row: int) -> str:
    """An image's file name as text: file names need not be any."""
    return as_utf8(dataset.file_names[row])


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A small JPEG of an image, uint8 (height, width, 3)."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()
