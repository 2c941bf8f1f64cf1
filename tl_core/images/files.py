"""Image files below a folder, or in a zip or tar that is read in place.

Archives are never unpacked, so that no member can be written anywhere; members that point outside the archive are
refused all the same. Free of torch on purpose: serving finds its images here too.
"""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tl_core.errors import InputError
from tl_core.images.decoding import is_image_name

Reader = Callable[[str], bytes]

ARCHIVE_SUFFIXES = (".zip", ".tar")

MAX_MEMBER_BYTES = 256 * 1024 * 1024
"""A larger file or archive member is refused unread: no picture is that large, a zip bomb is."""


def walk_images(root: Path) -> Iterator[tuple[str, OSError | None]]:
    """Image files below a folder, by their path from there with forward slashes, in order; at any depth.

    A folder that cannot be listed is yielded in their place, with the error. Only one folder's names are in memory at
    a time. Links to folders are followed, each folder is entered once, hidden files and folders are left out.
    """
    for name, error in _walk(root):
        if error is not None or is_image_name(name):
            yield name, error


def other_files(root: Path) -> Iterator[str]:
    """Files below a folder that `walk_images` leaves out, because they are not named like images."""
    return (name for name, error in _walk(root) if error is None and not is_image_name(name))


def _walk(root: Path) -> Iterator[tuple[str, OSError | None]]:
    visited = {os.path.realpath(root)}
    open_folders = [_sorted_children(root, "")]
    while open_folders:
        for name, is_folder, error in open_folders[-1]:
            # A link may lead to a parent, and then there would be no end.
            if is_folder and (real := os.path.realpath(root / name)) not in visited:
                visited.add(real)
                open_folders.append(_sorted_children(root / name, f"{name}/"))
                break
            if error is not None or not is_folder:
                yield name, error
        else:
            open_folders.pop()


def _sorted_children(folder: Path, prefix: str) -> Iterator[tuple[str, bool, OSError | None]]:
    try:
        with os.scandir(folder) as entries:
            children = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
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


def is_archive(path: Path) -> bool:
    """Return whether a path ends like an archive that can be read in place."""
    return path.suffix.lower() in ARCHIVE_SUFFIXES


def archive_names(path: Path) -> list[str]:
    """Image members of an archive, in its own order.

    Raises:
        InputError: not such an archive, or a member points outside it or is larger than `MAX_MEMBER_BYTES`.
    """
    return _zip_names(path) if path.suffix.lower() == ".zip" else _tar_names(path)


@contextmanager
def open_archive(path: Path) -> Iterator[Reader]:
    """Yield a function from a member's name to its bytes; it may be called from several threads.

    It raises OSError where the member is damaged.
    """
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            yield _zip_reader(archive)
    else:
        with tarfile.open(path, "r:") as archive:
            yield _tar_reader(archive)


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                (info.filename, info.file_size) for info in archive.infolist() if not info.filename.endswith("/")
            ]
    except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable zip archive ({error})") from error
    return _checked_names(path, members)


def _tar_names(path: Path) -> list[str]:
    try:
        with tarfile.open(path, "r:") as archive:
            members = [(info.name, info.size) for info in archive if info.isfile()]
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{path} is not a readable uncompressed tar archive ({error})") from error
    return _checked_names(path, members)


def _checked_names(path: Path, members: Sequence[tuple[str, int]]) -> list[str]:
    names = []
    for name, size in members:
        parts = PurePosixPath(name.replace("\\", "/"))
        if ".." in parts.parts or parts.is_absolute():
            raise InputError(f"{path} has a member named {name!r}, which points outside the archive; refused")
        if size > MAX_MEMBER_BYTES:
            raise InputError(
                f"{path}: expected at most {MAX_MEMBER_BYTES:,} bytes for one image, got {size:,} of {name}"
            )
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts.parts)
        if is_image_name(name) and not hidden:
            names.append(name)
    return list(dict.fromkeys(names))  # of a member that was added twice the last one counts


def _zip_reader(archive: zipfile.ZipFile) -> Reader:
    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        # A damaged, encrypted or unknown member is one unreadable image, not the end of the archive.
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            RuntimeError,
            NotImplementedError,
            EOFError,
            UnicodeDecodeError,
        ) as error:
            raise OSError(str(error)) from error

    return read


def _tar_reader(archive: tarfile.TarFile) -> Reader:
    members = {info.name: info for info in archive if info.isfile()}
    lock = threading.Lock()  # one file handle, hence one seek at a time

    def read(name: str) -> bytes:
        with lock:
            stream = archive.extractfile(members[name])
            if stream is None:
                raise OSError(f"{name} is no regular file")
            return stream.read()

    return read
