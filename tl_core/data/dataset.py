"""A labelled set of decoded images, and the data specs' way into it."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_core.data.cache import UnreadableFile, load_images
from tl_core.data.halves import keep_halves
from tl_core.data.notices import say_contradictions, say_misspelled, say_notices
from tl_core.data.specs import list_images
from tl_core.errors import DataWarning, InputError
from tl_core.images.decoding import ONE_COLOUR, ResizeRule
from tl_core.images.files import as_utf8
from tl_core.images.tables import is_table
from tl_core.recipes.checks import check_range
from tl_core.recipes.choices import Unreadable

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 1024
MAX_CLASS_LEVEL = 16


@dataclass(frozen=True)
class ImageDataset:
    """Decoded images with labels.

    Attributes:
        name: the spec it was loaded from.
        class_names: sorted; a label is a position in it.
        images: uint8, shape (images, size, size, 3), usually a memory map.
        labels: int64, shape (images,).
        file_names: one per image, below the spec's root.
        content_hashes: SHA-256 of each file's bytes.
        fingerprint: changes when any file's content, name or class does.
        unreadable: files that were left out, with the reason.
        decoded: images decoded for this load; 0 when the cache was warm.
        parts: one per image: train, val or test where the layout says so, else empty.
        groups: one per image: the patient, plant or video that it shows, where a csv names it, else empty.
        notices: sentences on what was left out, repaired or contradicts itself.
        other_files: files that are not named like images.
        one_colour: images without anything on them.
        class_level: level of the class folders that was asked for.
    """

    name: str
    class_names: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    file_names: tuple[str, ...]
    content_hashes: tuple[str, ...]
    fingerprint: str
    unreadable: tuple[UnreadableFile, ...]
    decoded: int
    parts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    other_files: tuple[str, ...] = ()
    one_colour: tuple[str, ...] = ()
    class_level: int = 0

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return int(self.images.shape[1])

    @cached_property
    def near_duplicates(self) -> NDArray[np.int64]:
        """Group of each image, int64 (images,): those that are the same, or nearly, share one.

        Where that would leave half of a class without images, identical files alone do, with a `DataWarning`.
        """
        from tl_core.data.near_duplicates import group_near_duplicates  # loads torch, which few commands need

        alike = group_near_duplicates(self.images, self.labels, self.content_hashes)
        return keep_halves(alike, self.labels, self.class_names, self.content_hashes)

    def class_counts(self) -> dict[str, int]:
        """Images per class, in the order of `class_names`."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))


def default_cache_dir() -> Path:
    """Folder of decoded images and built-in data: $TRANSFER_LAB_CACHE, else `.cache` in the working directory."""
    return Path(os.environ.get("TRANSFER_LAB_CACHE") or Path.cwd() / ".cache")


def load_dataset(
    spec: str,
    image_size: int,
    resize_rule: ResizeRule = "crop",
    unreadable: Unreadable = "refuse",
    cache_dir: Path | None = None,
    class_level: int = 0,
) -> ImageDataset:
    """Load the images that a data spec names, decoding each file at most once in its life.

    What was left out or repaired is said by a `DataWarning` each.

    Args:
        class_level: level of the class folders, from 1 on; -1 is the folder that holds the image, and 0 finds out.

    Raises:
        InputError: nothing there, fewer than two classes, or unreadable files while `unreadable` is "refuse".
    """
    check_range("image_size", image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)
    check_range("class_level", class_level, -1, MAX_CLASS_LEVEL)
    cache_dir = cache_dir or default_cache_dir()
    listing = list_images(spec, cache_dir / "data", class_level)
    cached = load_images(listing, image_size, resize_rule, cache_dir / "images")
    if unreadable == "refuse":
        refuse_unreadable(spec, cached.index.unreadable, len(listing.entries))
    class_names, labels = np.unique(np.array(cached.index.class_names, dtype=object), return_inverse=True)
    if len(class_names) < 2:
        raise InputError(_say_too_few(spec, list(class_names), cached.index.unreadable, listing.other_files))
    index = cached.index
    notices = (*listing.notices, *say_misspelled(index), *say_notices(index), *say_contradictions(index))
    for notice in notices:
        warnings.warn(notice, DataWarning, stacklevel=2)
    entries = {entry.name: entry for entry in listing.entries}
    return ImageDataset(
        name=spec,
        class_names=tuple(class_names),
        images=cached.pixels,
        labels=labels.astype(np.int64),
        file_names=tuple(cached.index.names),
        content_hashes=tuple(cached.index.content_hashes),
        fingerprint=cached.index.fingerprint,
        unreadable=tuple(cached.index.unreadable),
        decoded=cached.decoded,
        parts=tuple(entries[name].part for name in cached.index.names),
        groups=tuple(entries[name].group for name in cached.index.names),
        notices=notices,
        other_files=listing.other_files,
        one_colour=tuple(cached.index.notices.get(ONE_COLOUR, ())),
        class_level=class_level,
    )


def _say_too_few(
    spec: str, class_names: Sequence[str], unreadable: Sequence[UnreadableFile], others: Sequence[str]
) -> str:
    """Say why there are too few classes, the reason first."""
    expected = f"expected at least 2 classes with readable images in {spec}, got {', '.join(class_names) or 'none'}"
    if unreadable:
        file = unreadable[0]
        return f"{len(unreadable)} images cannot be read, the first is {file.name} ({file.reason}); {expected}"
    tables = [name for name in others if is_table(Path(name))]
    return f"{expected}; if {tables[0]} has the labels, give its path" if tables else expected


def copy_files(
    spec: str, names: Sequence[str], target: Path, cache_dir: Path | None = None, class_level: int = 0
) -> None:
    """Copy some of a spec's files, by their `file_names` and as they are, into a new zip."""
    listing = list_images(spec, (cache_dir or default_cache_dir()) / "data", class_level)
    with listing.open() as read, zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(as_utf8(name), read(name))


def refuse_unreadable(spec: str, files: Sequence[UnreadableFile], n_files: int) -> None:
    """Raise `InputError` if there are unreadable files: how many, the first one's reason, the way out."""
    if files:
        raise InputError(
            f"{len(files)} of {n_files} images in {spec} cannot be read, the first is {files[0].name} "
            f"({files[0].reason}); remove them, or leave them out: --unreadable skip (-P unreadable=skip, or with make "
            "UNREADABLE=skip)"
        )
