"""The image files of a data spec, and the form of a layout."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tl_core.data.classes.levels import place_folders
from tl_core.data.classes.names import tidy_class_names
from tl_core.errors import InputError
from tl_core.images.containers.archives import open_archive
from tl_core.images.decoding import IMAGE_KINDS
from tl_core.images.files import Reader, read_image_file

_RULES = "2"
"""To be raised with every change of the classes that a layout gives."""

UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".dcm", ".nii", ".jp2", ".jxl", ".ppm", ".pgm", ".pnm", ".nef", ".cr2", ".cr3", ".arw", ".dng"}
)
"""Image formats that are not read: a class that holds nothing else must not vanish."""


@dataclass(frozen=True)
class ImageEntry:
    """One image file of a spec, before anything of it is read."""

    class_name: str
    """Name of the class: a folder's, or a label of a table."""
    name: str
    """Path below the spec's root, with forward slashes."""
    part: str = ""
    """train, val or test, where the layout says so."""
    fault: str = ""
    """Reason why the file cannot be used, where that is known before it is read."""
    group: str = ""
    """Patient, plant or video that the image shows, where a csv names it."""


@dataclass(frozen=True)
class ImageListing:
    """The image files of a spec in a fixed order, and a signature that changes when any of them may have."""

    root: Path
    entries: tuple[ImageEntry, ...]
    signature: str
    notices: tuple[str, ...] = ()
    """Sentences on what was left out, brought together or not counted."""
    other_files: tuple[str, ...] = ()
    """Files that are not named like images."""

    @contextmanager
    def open(self) -> Iterator[Reader]:
        """Yield a function from an entry's name to the file's bytes; it may be called from several threads."""
        if self.root.is_dir():
            yield lambda name: read_image_file(self.root / name)
        else:
            with open_archive(self.root) as read:
                yield read


@dataclass(frozen=True)
class Layout:
    """One way in which labelled images are laid out.

    Attributes:
        description: for the sentence that says what is expected, such as `a folder`.
        accepts: from a spec to whether it is laid out so; only then may `list_images` be called.
        list_images: from the spec, the folder of the cached data and the level of the class folders (0: found out) to
            the listing.
    """

    description: str
    accepts: Callable[[str], bool]
    list_images: Callable[[str, Path, int], ImageListing]


@dataclass(frozen=True)
class FoundFiles:
    """Files of a folder or an archive, by their paths below its root, with forward slashes.

    Attributes:
        images: those named like images.
        stamps: facts that change when one of them does.
        others: those named otherwise.
        left_out: sentences on what was left out before.
    """

    images: Sequence[str]
    stamps: Sequence[str]
    others: Sequence[str] = ()
    left_out: Sequence[str] = ()


def list_class_folders(spec: str, root: Path, found: FoundFiles, level: int) -> ImageListing:
    """List files whose folders name their class.

    Args:
        level: that of the class folders, or 0 (`place_folders`).

    Raises:
        InputError: no image, no class folders or unclear ones, or a class without an image that can be read.
    """
    if not found.images:
        expected = f"no images found in {spec}; expected class folders with {IMAGE_KINDS} files"
        raise InputError("; ".join([expected, *found.left_out]))
    counts = Counter(map(_folder_of, found.images))
    unread = {_folder_of(name): name for name in found.others if _suffix(name) in UNREAD_SUFFIXES and "/" in name}
    placement = place_folders(spec, {**dict.fromkeys(unread, 0), **counts}, level)
    places = placement.places
    class_names, notices = tidy_class_names(spec, {place.class_name for place in places.values() if place.class_name})
    entries = []
    for name in found.images:
        place = places[_folder_of(name)]
        if place.class_name:
            entries.append(ImageEntry(class_names[place.class_name], name, place.part))
    kept = {entry.class_name for entry in entries}
    for folder, name in unread.items():
        lost = class_names.get(places[folder].class_name)
        if lost is not None and lost not in kept:
            raise InputError(
                f"{spec}: class {lost} has no image that can be read, the first file is {name}; expected {IMAGE_KINDS} "
                "files: convert them, or move the folder elsewhere"
            )
    facts = [*found.images, *found.stamps, f"rules {_RULES}, level {level}"]
    said = (*found.left_out, *placement.notices, *notices)
    return ImageListing(root, tuple(sorted(entries, key=order)), signature(root, facts), said, tuple(found.others))


def signature(root: Path, facts: Sequence[str]) -> str:
    """Hash the place of some data and facts that change when its content may have."""
    return hashlib.sha256("\n".join([str(root.resolve()), *facts]).encode("utf-8", "surrogateescape")).hexdigest()


def order(entry: ImageEntry) -> tuple[str, str]:
    """Sort key of entries."""
    return entry.class_name, entry.name


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]  # by hand: a path object for each of a million names takes seconds


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2].lower()
