"""From an image file to a uint8 array: the one definition that training and serving share.

Free of torch on purpose: serving imports this module and nothing else of the library. What happens after the
array (scaling, normalisation, softmax) lives inside the exported graph.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

PREPROCESS_VERSION = 1
"""To be raised with every change of the pixels that `decode_image` gives."""

ResizeRule = Literal["crop", "stretch"]
RESIZE_RULES: tuple[ResizeRule, ...] = get_args(ResizeRule)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before a pixel is decoded: a few kilobytes can claim terabytes."""


class UnreadableImageError(ValueError):
    """One image cannot be used; the message is the reason, without the file's name."""


def is_image_name(name: str) -> bool:
    """Return whether a name is an image's and not that of a hidden file (macOS leaves `._x.jpg` beside `x.jpg`)."""
    path = Path(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def decode_image(source: Path | bytes, image_size: int, resize_rule: ResizeRule = "crop") -> NDArray[np.uint8]:
    """Decode one image to RGB and bring it to a square.

    EXIF orientation is applied, transparency is laid on white, 16-bit greys are scaled to 8 bits, and of an
    animation the first frame counts. `crop` scales the shorter side to `image_size` and cuts the centre;
    `stretch` ignores the aspect ratio. Both scale with antialiased bilinear filtering.

    Returns:
        uint8 array of shape (image_size, image_size, 3).

    Raises:
        UnreadableImageError: not an image, truncated, or larger than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_PILLOW_FORMATS) as image:
            _check_pixels(image.size)
            image.draft("RGB", (image_size, image_size))
            square = _to_square(_to_rgb(_upright(image)), image_size, resize_rule)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not a png, jpg, webp or bmp image") from error
    # Pillow's decoders signal damaged bytes with any of these.
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, MemoryError) as error:
        raise UnreadableImageError(_one_line(error)) from error
    return np.asarray(square, dtype=np.uint8)


def _check_pixels(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"expected at most {MAX_PIXELS:,} pixels, got {width:,} x {height:,}")
    if width == 0 or height == 0:
        raise UnreadableImageError("no pixels")


_ORIENTATION_TAG = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes all tags anew, and a strange one would cost the picture.
    image.load()
    transpose = _TRANSPOSES.get(image.getexif().get(_ORIENTATION_TAG, 1))
    return image if transpose is None else image.transpose(transpose)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float32)
        # 16-bit files use 0..65535; the division maps their full range onto 0..255.
        return Image.fromarray(np.clip(grey / 257.0, 0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_square(image: Image.Image, size: int, rule: ResizeRule) -> Image.Image:
    if image.size == (size, size):
        return image
    if rule == "stretch":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text or type(error).__name__
