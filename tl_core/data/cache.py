"""Decode once: every spec becomes a memory-mapped uint8 array, keyed by its content and the preprocessing.

Two small layers. A *listing* remembers, for a spec whose files look unchanged (name, size, time), what its
content is. A *pixel file* holds the decoded images of that content at one size: the same pictures in a folder
and in a zip share it. Both are written beside their final name and renamed, under a lock, so that several
processes may ask at once and a killed one leaves nothing half-written.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray

from tl_core.data.layouts.listing import ImageEntry, ImageListing
from tl_core.errors import DataWarning
from tl_core.files import complete_file, disk_full_as_input_error, line_checksum
from tl_core.images.decoding import (
    PREPROCESS_VERSION,
    DecodedImage,
    ResizeRule,
    UnreadableImageError,
    decode_with_notices,
)
from tl_core.images.files import Reader, file_stamp

# Pixels decoded by other code are other pixels: serving would decode anew, and must agree.
_DECODER = f"{PREPROCESS_VERSION}.{PIL.__version__}"
_DECODE_CHUNK = 512  # images in flight at a time: bounds memory, keeps the threads busy
_READ_CHUNK = 1 << 24


@dataclass(frozen=True)
class UnreadableFile:
    """A file that looks like an image and is not usable as one."""

    name: str
    reason: str


@dataclass(frozen=True)
class CacheIndex:
    """Index of a decoded spec: one row per readable image, in the order of the pixel file.

    Attributes:
        pixels_crc: CRC-32 of the pixel file.
        pixels_stamp: `file_stamp` of it when its checksum was last seen to hold.
    """

    fingerprint: str
    class_names: list[str]
    names: list[str]
    content_hashes: list[str]
    unreadable: list[UnreadableFile]
    pixels_crc: int
    pixels_stamp: str = ""
    notices: dict[str, list[str]] = field(default_factory=dict)
    """What was repaired or chosen to read an image, with the names of such images."""

    @classmethod
    def from_json(cls, text: str) -> CacheIndex:
        """Read back what `to_json` wrote.

        Raises:
            ValueError, TypeError or KeyError: it is damaged, or another release wrote it.
        """
        checksum, _, text = text.partition(" ")
        if checksum != line_checksum(text.encode()):
            raise ValueError("expected a checksum that holds")
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "unreadable": [UnreadableFile(**row) for row in fields["unreadable"]]})

    def to_json(self) -> str:
        """Write it as one line with its checksum."""
        text = json.dumps(asdict(self))
        return f"{line_checksum(text.encode())} {text}"


@dataclass(frozen=True)
class CachedImages:
    """A decoded spec.

    Attributes:
        index: names, classes and hashes, one per row of `pixels`.
        pixels: read-only memory map, uint8, shape (images, size, size, 3).
        decoded: images decoded by this call; 0 when the cache was warm.
    """

    index: CacheIndex
    pixels: NDArray[np.uint8]
    decoded: int


def load_images(listing: ImageListing, image_size: int, resize_rule: ResizeRule, cache_dir: Path) -> CachedImages:
    """Return the decoded images of a listing, decoding them only if no earlier call did."""
    with disk_full_as_input_error(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(f"{listing.signature}:{image_size}:{resize_rule}:{_DECODER}".encode()).hexdigest()[:32]
    index_path = cache_dir / f"{key}.json"

    def pixels_of(index: CacheIndex) -> Path:
        return cache_dir / f"{index.fingerprint[:32]}-{resize_rule}{image_size}-{_DECODER}.uint8"

    with FileLock(cache_dir / f"{key}.lock"):
        index = _read_index(index_path)
        decoded = 0
        if index is None or not _holds(index, pixels_of(index)):
            pixels = cache_dir / f"{key}.pixels"
            index = _decode_all(listing, image_size, resize_rule, pixels)
            pixels.replace(pixels_of(index))
            decoded = len(index.names)
        stamp = file_stamp(pixels_of(index))
        if index.pixels_stamp != stamp:
            index = replace(index, pixels_stamp=stamp)
            with complete_file(index_path) as file:
                file.write(index.to_json().encode())
    return CachedImages(index, _map_pixels(index, image_size, pixels_of(index)), decoded)


def _read_index(path: Path) -> CacheIndex | None:
    try:
        return CacheIndex.from_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        warnings.warn(f"{path} is damaged, or of another release; the images are decoded again", DataWarning, 2)
        return None


def _holds(index: CacheIndex, pixels: Path) -> bool:
    """Return whether a pixel file is the one of an index; its bytes are read only if somebody has touched it."""
    if not pixels.is_file():
        return False
    if file_stamp(pixels) == index.pixels_stamp:
        return True
    crc = 0
    with pixels.open("rb") as file:
        while chunk := file.read(_READ_CHUNK):
            crc = zlib.crc32(chunk, crc)
    if crc != index.pixels_crc:
        warnings.warn(f"{pixels} is damaged; the images are decoded again", DataWarning, stacklevel=2)
    return crc == index.pixels_crc


def _map_pixels(index: CacheIndex, image_size: int, path: Path) -> NDArray[np.uint8]:
    shape = (len(index.names), image_size, image_size, 3)
    if not index.names:  # an empty file cannot be mapped
        return np.zeros(shape, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def _decode_all(listing: ImageListing, image_size: int, resize_rule: ResizeRule, pixels: Path) -> CacheIndex:
    kept: list[tuple[ImageEntry, str]] = []
    unreadable: list[UnreadableFile] = []
    notices: dict[str, list[str]] = {}
    crc = 0
    with complete_file(pixels) as file:
        for entry, outcome in _decoded(listing, image_size, resize_rule):
            if isinstance(outcome, str):
                unreadable.append(UnreadableFile(entry.name, outcome))
            else:
                image, content_hash = outcome
                file.write(image.pixels.data)
                crc = zlib.crc32(image.pixels.data, crc)
                kept.append((entry, content_hash))
                for notice in image.notices:
                    notices.setdefault(notice, []).append(entry.name)
    return replace(_build_index(kept, unreadable, notices), pixels_crc=crc)


def _build_index(
    kept: list[tuple[ImageEntry, str]], unreadable: list[UnreadableFile], notices: dict[str, list[str]]
) -> CacheIndex:
    # File names count, the folders above the class do not: moving or zipping a data set keeps its fingerprint.
    lines = [f"{entry.class_name}/{Path(entry.name).name}:{content}" for entry, content in kept]
    return CacheIndex(
        fingerprint=hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest(),
        class_names=[entry.class_name for entry, _ in kept],
        names=[entry.name for entry, _ in kept],
        content_hashes=[content for _, content in kept],
        unreadable=unreadable,
        pixels_crc=0,
        notices=notices,
    )


Outcome = tuple[DecodedImage, str] | str  # with the content hash, or the reason why there are none


def _decoded(listing: ImageListing, image_size: int, rule: ResizeRule) -> Iterator[tuple[ImageEntry, Outcome]]:
    with listing.open() as read, ThreadPoolExecutor(os.cpu_count()) as threads:

        def decode(entry: ImageEntry) -> Outcome:
            return _decode_entry(read, entry, image_size, rule)

        for start in range(0, len(listing.entries), _DECODE_CHUNK):
            chunk = listing.entries[start : start + _DECODE_CHUNK]
            yield from zip(chunk, threads.map(decode, chunk), strict=True)


def _decode_entry(read: Reader, entry: ImageEntry, image_size: int, rule: ResizeRule) -> Outcome:
    if entry.fault:
        return entry.fault
    try:
        content = read(entry.name)
        return decode_with_notices(content, image_size, rule), hashlib.sha256(content).hexdigest()
    except UnreadableImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
