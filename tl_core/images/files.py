"""Image files below a folder. Free of torch on purpose: serving finds its images here too."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tl_core.images.decoding import is_image_name

Reader = Callable[[str], bytes]

MAX_MEMBER_BYTES = 256 * 1024 * 1024
"""A larger file or archive member is refused unread: no image is that large, a zip bomb is."""

_GENERATED_FOLDERS = frozenset(
    {"thumbnail", "thumbnails", "lost+found", "#recycle", "$recycle.bin", "system volume information"}
)
_MOST_NAMED = 5


@dataclass(frozen=True)
class LeftOut:
    """Names that a walk left out.

    Attributes:
        folders: hidden and generated ones that hold images.
        files: those that are not named like images.
    """

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def as_utf8(text: str) -> str:
    """Return text, such as a file's name, that UTF-8 can hold: bytes that are no text are written out in digits."""
    return text.encode("utf-8", "backslashreplace").decode()


def say_left_out(spec: str, folders: Sequence[str]) -> list[str]:
    """Say which hidden and generated folders with images were left out, if any."""
    return [f"{spec}: hidden and generated folders, left out: {name_some(sorted(folders))}"] if folders else []


def is_left_out_folder(name: str) -> bool:
    """Return whether a folder is hidden, or one that a NAS, an editor or a system makes for itself."""
    return name.startswith((".", "@", "__")) or name.lower() in _GENERATED_FOLDERS


def name_some(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """Join the first names for a sentence, and count the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def walk_images(root: Path, left_out: LeftOut | None = None) -> Iterator[tuple[str, OSError | None]]:
    """Image files below a folder, by their path from there with forward slashes, in order; at any depth.

    A folder that cannot be listed is yielded in their place, with the error. Only one folder's names are in memory at
    a time. Links to folders are followed, each folder is entered once, hidden and generated folders are left out.

    Args:
        left_out: takes the names of what is left out.
    """
    base = f"{root}{os.sep}"  # by hand: a path object for each of a million names takes seconds
    visited = {os.path.realpath(root)}
    open_folders = [_sorted_children(str(root), "")]
    while open_folders:
        for name, is_folder, error in open_folders[-1]:
            if error is not None or not is_folder:
                if error is not None or is_image_name(name):
                    yield name, error
                elif left_out is not None and not name.rpartition("/")[2].startswith("."):
                    left_out.files.append(name)
            elif is_left_out_folder(name.rpartition("/")[2]):
                if left_out is not None and any(error is None for _, error in walk_images(Path(base + name))):
                    left_out.folders.append(name)
            # A link may lead to a parent, and then there would be no end.
            elif (real := os.path.realpath(base + name)) not in visited:
                visited.add(real)
                open_folders.append(_sorted_children(base + name, f"{name}/"))
                break
        else:
            open_folders.pop()


def _sorted_children(folder: str, prefix: str) -> Iterator[tuple[str, bool, OSError | None]]:
    try:
        with os.scandir(folder) as entries:
            children = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        yield prefix.rstrip("/") or ".", False, error
        return
    for name, is_folder in children:
        yield prefix + name, is_folder, None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a ring
        return False


def file_stamp(path: str | Path) -> str:
    """Return facts that change when a file's content may have: size, times and the place on the disk."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a path object for each of a million names takes seconds
    except (OSError, ValueError) as error:  # a broken link, or a name that no file can have
        return type(error).__name__
    # A file that was put in another's place may have its size and time, but not its number and time of change.
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}:{status.st_ctime_ns}"


def read_image_file(path: Path) -> bytes:
    """The bytes of a file of at most `MAX_MEMBER_BYTES`.

    Raises:
        OSError: unreadable, too large, or something that has no end, such as a pipe or a device.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > MAX_MEMBER_BYTES:
        raise OSError(f"expected at most {MAX_MEMBER_BYTES:,} bytes for one image, got {status.st_size:,}")
    return path.read_bytes()
