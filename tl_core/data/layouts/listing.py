"""The image files of a data spec, and the form of a layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tl_core.errors import InputError
from tl_core.images.files import Reader, open_archive, read_image_file

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of a layout's parts, in folders and in a column."""


@dataclass(frozen=True)
class ImageEntry:
    """One image file of a spec, before anything of it is read."""

    class_name: str
    """Name of the folder that holds the file."""
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
        list_images: from the spec and the folder of the cached data to the listing.
    """

    description: str
    accepts: Callable[[str], bool]
    list_images: Callable[[str, Path], ImageListing]


def list_class_folders(spec: str, root: Path, names: Sequence[str], stamps: Sequence[str]) -> ImageListing:
    """List files whose folder names their class.

    Args:
        names: paths of the images below the root, with forward slashes.
        stamps: facts that change when a file does.

    Raises:
        InputError: no image, or one outside of class folders.
    """
    entries = tuple(sorted((_entry(name) for name in names), key=order))
    if not entries:
        raise InputError(f"no images found in {spec}; expected class folders with png, jpg, webp or bmp files")
    if any(entry.class_name == "" for entry in entries):
        raise InputError(f"{spec} holds images outside of class folders; expected {spec}/<class>/<image>")
    if all(entry.class_name.lower() in PART_NAMES for entry in entries):
        names_found = ", ".join(sorted({entry.class_name for entry in entries}))
        raise InputError(f"{spec} has its images right below {names_found}; expected {spec}/train/<class>/<image>")
    return ImageListing(root, entries, signature(root, [*names, *stamps]))


def signature(root: Path, facts: Sequence[str]) -> str:
    """Hash the place of some data and facts that change when its content may have."""
    return hashlib.sha256("\n".join([str(root.resolve()), *facts]).encode("utf-8", "surrogateescape")).hexdigest()


def file_stamp(path: Path) -> str:
    """Return size and time of a file."""
    try:
        status = path.stat()
    except OSError:  # a dangling link: listed, and reported as unreadable when it is read
        return "missing"
    return f"{status.st_size}:{status.st_mtime_ns}"


def order(entry: ImageEntry) -> tuple[str, str]:
    """Sort key of entries."""
    return entry.class_name, entry.name


def _entry(name: str) -> ImageEntry:
    # By hand: a path object for each of a million names takes seconds.
    folder = name.rpartition("/")[0]
    above, _, class_name = folder.rpartition("/")
    return ImageEntry(class_name, name, PART_NAMES.get(above.rpartition("/")[2].lower(), ""))
