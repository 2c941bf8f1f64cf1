"""Sizes of images as their files hold them, before they are decoded to squares."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tl_core.data.dataset import default_cache_dir
from tl_core.data.specs import list_images


def count_sizes(
    spec: str, names: Sequence[str], cache_dir: Path | None = None, class_level: int = 0
) -> Counter[tuple[int, int]]:
    """Count the sizes of some of a spec's images, by their `file_names`: (width, height) in pixels.

    Only the beginnings of the files are understood; those that Pillow does not know by them are not counted.
    """
    listing = list_images(spec, (cache_dir or default_cache_dir()) / "data", class_level)
    sizes = Counter[tuple[int, int]]()
    with listing.open() as read:
        for name in names:
            try:
                with Image.open(io.BytesIO(read(name))) as image:
                    sizes[image.size] += 1
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # repaired to be decoded, say
                continue
    return sizes
