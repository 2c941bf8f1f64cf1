"""One grammar for `source`, `target` and `data`: what a spec names, and the files in it.

A spec is a folder of class folders, a `.zip` or `.tar` of one at any depth, a `.csv` of paths and labels beside its
images, or a name: `digits:source`, `digits:target`, `eurosat`. Class folders may lie in folders train, val and test.
Archives are read in place and never unpacked, so that no member can be written anywhere; members that point outside
the archive are refused all the same.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock

from tl_core.csv_layout import PART_NAMES, CsvRow, read_rows
from tl_core.errors import InputError
from tl_core.preprocess import is_image_name

Reader = Callable[[str], bytes]

MAX_MEMBER_BYTES = 256 * 1024 * 1024
"""A larger archive member is refused unread: no picture is that large, a zip bomb is."""

BUILT_IN = ("digits:source", "digits:target", "eurosat")


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
    """Why the file cannot be used, where that is known before it is read."""


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
            yield lambda name: (self.root / name).read_bytes()
        elif self.root.suffix.lower() == ".zip":
            with zipfile.ZipFile(self.root) as archive:
                yield _zip_reader(archive)
        else:
            with tarfile.open(self.root, "r:") as archive:
                yield _tar_reader(archive)


def list_images(spec: str, data_dir: Path) -> ImageListing:
    """Find the images that a spec names.

    Args:
        spec: a folder, a `.zip`, `.tar` or `.csv`, or one of `BUILT_IN`.
        data_dir: where the built-in sets are written to.

    Raises:
        InputError: the path is missing, of another kind, not an archive, unsafe, or holds no class folders.
    """
    root = _resolve(spec, data_dir)
    if root.suffix.lower() == ".csv" and root.is_file():
        return _list_table(root)
    if root.is_dir():
        names, stamps = _folder_names(root)
    elif root.suffix.lower() == ".zip":
        names, stamps = _zip_names(root), [_file_stamp(root)]
    else:
        names, stamps = _tar_names(root), [_file_stamp(root)]
    entries = tuple(sorted((_entry(name) for name in names), key=_order))
    if not entries:
        raise InputError(f"no images found in {spec}; expected class folders with png, jpg, webp or bmp files")
    if any(entry.class_name == "" for entry in entries):
        raise InputError(f"{spec} holds images outside of class folders; expected {spec}/<class>/<image>")
    if all(entry.class_name.lower() in PART_NAMES for entry in entries):
        names_found = ", ".join(sorted({entry.class_name for entry in entries}))
        raise InputError(f"{spec} has its images right below {names_found}; expected {spec}/train/<class>/<image>")
    return ImageListing(root, entries, _signature(root, [*names, *stamps]))


def _entry(name: str) -> ImageEntry:
    folder = PurePosixPath(name).parent
    return ImageEntry(folder.name, name, PART_NAMES.get(folder.parent.name.lower(), ""))


def _list_table(table: Path) -> ImageListing:
    rows = read_rows(table)
    stamps = [_file_stamp(table), *(row.fault or _file_stamp(table.parent / row.file) for row in rows)]
    entries = tuple(sorted((_entry_of_row(row) for row in rows), key=_order))
    return ImageListing(table.parent, entries, _signature(table, stamps))


def _entry_of_row(row: CsvRow) -> ImageEntry:
    return ImageEntry(row.class_name, row.file, row.part, row.fault)


def _signature(root: Path, facts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([str(root.resolve()), *facts]).encode("utf-8", "surrogateescape")).hexdigest()


def _order(entry: ImageEntry) -> tuple[str, str]:
    return entry.class_name, entry.name


def _resolve(spec: str, data_dir: Path) -> Path:
    if spec.startswith("digits:"):
        from tl_core.digits import write_digits

        return write_digits(spec, data_dir)
    if spec == "eurosat":
        return _download_eurosat(data_dir)
    path = Path(os.path.expanduser(spec))  # noqa: PTH111 - unlike Path's, these two never raise
    if not os.path.exists(path):  # noqa: PTH110
        raise InputError(f"no data at {spec!r}; allowed is a folder, a .zip, .tar or .csv, or {', '.join(BUILT_IN)}")
    if path.is_dir() or path.suffix.lower() in (".zip", ".tar", ".csv"):
        return path
    raise InputError(f"{spec} is a file of kind {path.suffix or 'unknown'!r}; allowed is a folder, .zip, .tar or .csv")


def _download_eurosat(data_dir: Path) -> Path:
    folder = data_dir / "eurosat"
    data_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(data_dir / "eurosat.lock"):
        if not folder.is_dir():
            from torchvision.datasets import EuroSAT

            # Beside its place and then renamed: what a killed download leaves is never taken for the whole.
            with tempfile.TemporaryDirectory(dir=data_dir) as scratch:
                try:
                    EuroSAT(scratch, download=True)
                except (OSError, RuntimeError) as error:
                    raise InputError(
                        f"EuroSAT could not be downloaded ({error}); fetch EuroSAT.zip elsewhere and give its path"
                    ) from error
                Path(scratch, "eurosat").rename(folder)
    return folder / "2750"


def _folder_names(root: Path) -> tuple[list[str], list[str]]:
    names, stamps = [], []
    visited = {root.resolve()}
    for folder, subfolders, files in os.walk(root, onerror=_refuse_folder, followlinks=True):
        # A link may lead to a parent, and then there would be no end: each folder is entered once.
        kept = [n for n in sorted(subfolders) if not n.startswith(".") and Path(folder, n).resolve() not in visited]
        subfolders[:] = kept
        visited |= {Path(folder, name).resolve() for name in kept}
        for file in sorted(files):
            if is_image_name(file):
                path = Path(folder, file)
                names.append(path.relative_to(root).as_posix())
                stamps.append(_file_stamp(path))
    return names, stamps


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"folder {error.filename} cannot be read ({error.strerror})") from error


def _file_stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # a dangling link: listed, and reported as unreadable when it is read
        return "missing"
    return f"{status.st_size}:{status.st_mtime_ns}"


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
            raise InputError(f"{path}: {name} claims {size:,} bytes; allowed are {MAX_MEMBER_BYTES:,} for one image")
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
