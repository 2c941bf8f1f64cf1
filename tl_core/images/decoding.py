"""From an image file to a uint8 array: the one definition that training and serving share.

Free of torch on purpose: serving imports this module and nothing else of the library. What happens after the
array (scaling, normalisation, softmax) lives inside the exported graph.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tl_core.images.greys import to_bytes
from tl_core.images.repairs import ended_jpegs, lacks_end, png_without_metadata

PREPROCESS_VERSION = 2
"""To be raised with every change of the pixels that `decode_image` gives."""

ResizeRule = Literal["crop", "stretch"]
RESIZE_RULES: tuple[ResizeRule, ...] = get_args(ResizeRule)

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
)
IMAGE_KINDS = "png, jpg, webp, bmp, tif, gif or avif"
_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")

MAX_PIXELS = 80_000_000
"""Larger images are refused before a pixel is decoded: a few kilobytes can claim terabytes."""

ONE_COLOUR = "are of one colour"
"""Notice of an image without anything on it."""

_CUT_SHORT = "are cut short by their last bytes, their pixels are whole"

# Pillow's decoders signal damaged bytes with any of these.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,
    ZeroDivisionError,
    MemoryError,
)


class UnreadableImageError(ValueError):
    """One image cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class DecodedImage:
    """An image as a uint8 array of shape (size, size, 3), and what was repaired or chosen to get it."""

    pixels: NDArray[np.uint8]
    notices: tuple[str, ...] = ()


def is_image_name(name: str) -> bool:
    """Return whether a name is an image's and not that of a hidden file (macOS leaves `._x.jpg` beside `x.jpg`)."""
    file = name.rpartition("/")[2]
    stem, dot, suffix = file.rpartition(".")
    return bool(stem) and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES and not file.startswith(".")


def decode_image(source: Path | bytes, image_size: int, resize_rule: ResizeRule = "crop") -> NDArray[np.uint8]:
    """Decode one image to RGB and bring it to a square.

    EXIF orientation is applied, transparency is laid on white unless nothing would be left, greys of more than 8 bits
    are scaled by the range of their values (`tl_core.images.greys`), and of an animation or a stack the first frame
    counts. `crop` scales the shorter side to `image_size` and cuts the centre; `stretch` ignores the aspect ratio. Both
    scale with antialiased bilinear filtering.

    Returns:
        uint8 array of shape (image_size, image_size, 3).

    Raises:
        UnreadableImageError: not an image, truncated, or larger than `MAX_PIXELS`.
    """
    return decode_with_notices(source, image_size, resize_rule).pixels


def decode_with_notices(source: Path | bytes, image_size: int, resize_rule: ResizeRule = "crop") -> DecodedImage:
    """Decode like `decode_image`, and tell what was repaired or chosen.

    Raises:
        UnreadableImageError: not an image, truncated, or larger than `MAX_PIXELS`.
    """
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise UnreadableImageError(_one_line(error)) from error
    try:
        found = _decode(content, image_size, resize_rule)
        if lacks_end(content):
            found = DecodedImage(found.pixels, (*found.notices, _CUT_SHORT))
    except UnreadableImageError as error:
        found = _decode_repaired(content, image_size, resize_rule, error)
    notices = (*found.notices, ONE_COLOUR) if _is_of_one_colour(found.pixels) else found.notices
    return DecodedImage(found.pixels, tuple(filter(None, notices)))


def _is_of_one_colour(pixels: NDArray[np.uint8]) -> bool:
    values = pixels.data.cast("B")
    return values[3:] == values[:-3]  # ends at the first difference, as numpy's comparison does not


def _decode(content: bytes, size: int, rule: ResizeRule) -> DecodedImage:
    try:
        with Image.open(io.BytesIO(content), formats=_PILLOW_FORMATS) as image:
            _check_pixels(image.size)
            image.draft("RGB", (size, size))
            frames = "are the first of several frames" if _has_frames(image) else ""
            upright, exif = _upright(image)
            rgb, colours = _to_rgb(upright)
            square = _to_square(rgb, size, rule)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"not a {IMAGE_KINDS} image") from error
    except _DAMAGED as error:
        raise UnreadableImageError(_one_line(error)) from error
    return DecodedImage(np.asarray(square, dtype=np.uint8), (frames, exif, colours))


def _decode_repaired(content: bytes, size: int, rule: ResizeRule, error: UnreadableImageError) -> DecodedImage:
    """Decode a file that was refused, if its pixels are whole all the same; else raise the error."""
    plain = png_without_metadata(content)
    if plain is not None and len(plain) < len(content):
        with suppress(UnreadableImageError):
            found = _decode(plain, size, rule)
            return DecodedImage(
                found.pixels, (*found.notices, "have a colour profile or texts that are too large and are left out")
            )
    ended = ended_jpegs(content)
    if ended:
        with suppress(*_DAMAGED, Image.DecompressionBombError):
            if _same_pixels(ended):
                found = _decode(ended[0], size, rule)
                return DecodedImage(found.pixels, (*found.notices, _CUT_SHORT))
    raise error


def _same_pixels(jpegs: Sequence[bytes]) -> bool:
    """Compare at full size: in a small square, a few missing pixels would not be seen."""
    digests = set()
    for content in jpegs:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            _check_pixels(image.size)
            digests.add(hashlib.sha256(image.tobytes()).digest())
        if len(digests) > 1:
            return False
    return True


def _has_frames(image: Image.Image) -> bool:
    # Phones keep a small copy or a depth map beside a JPEG: that is no animation.
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


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


def _upright(image: Image.Image) -> tuple[Image.Image, str]:
    # Not ImageOps.exif_transpose: it writes all tags anew, and a strange one would cost the image.
    image.load()
    try:
        transpose = _TRANSPOSES.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except _DAMAGED:
        return image, "have an Exif that cannot be read and is left out"
    return (image if transpose is None else image.transpose(transpose)), ""


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    if image.mode.startswith("I") or image.mode == "F":
        grey, notice = to_bytes(np.asarray(image, dtype=np.float32), are_shares=image.mode == "F")
        return Image.fromarray(grey).convert("RGB"), notice
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (0, 0):
            colours = rgba.convert("RGB")
            if colours.getcolors(1) is None:  # more than one: laid on white, all of it would be gone
                return colours, "are transparent everywhere, their colours are taken"
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB"), ""
    return image.convert("RGB"), ""


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
