"""One grammar for `source`, `target` and `data`: what a spec names, and the files in it.

A spec is a folder of class folders, a `.zip` or `.tar` of one at any depth, a `.csv` of paths and labels beside its
images, or a name: `digits:source`, `digits:target`, `eurosat`. Class folders may lie in folders train, val and test.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tl_core.data.tables import PART_NAMES, CsvRow, read_rows
from tl_core.errors import InputError
from tl_core.files import complete_file, room_for
from tl_core.images.files import Reader, archive_names, is_archive, open_archive, read_image_file, walk_images

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
            yield lambda name: read_image_file(self.root / name)
        else:
            with open_archive(self.root) as read:
                yield read


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
    else:
        names, stamps = _remembered_names(root, data_dir), [_file_stamp(root)]
    entries = tuple(sorted((_entry(name) for name in names), key=_order))
    if not entries:
        raise InputError(f"no images found in {spec}; expected class folders with png, jpg, webp or bmp files")
    if any(entry.class_name == "" for entry in entries):
        raise InputError(f"{spec} holds images outside of class folders; expected {spec}/<class>/<image>")
    if all(entry.class_name.lower() in PART_NAMES for entry in entries):
        names_found = ", ".join(sorted({entry.class_name for entry in entries}))
        raise InputError(f"{spec} has its images right below {names_found}; expected {spec}/train/<class>/<image>")
    return ImageListing(root, entries, _signature(root, [*names, *stamps]))


def _remembered_names(archive: Path, data_dir: Path) -> list[str]:
    """Image members of an archive; a large tar takes seconds to walk, so what was found is kept."""
    known = data_dir / f"names-{_signature(archive, [_file_stamp(archive)])[:32]}.json"
    with suppress(OSError, ValueError):
        names: list[str] = json.loads(known.read_text())
        return names
    names = archive_names(archive)
    with room_for(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(known.with_suffix(".lock")), complete_file(known) as file:
        file.write(json.dumps(names).encode())
    return names


def _entry(name: str) -> ImageEntry:
    # By hand: a path object for each of a million names takes seconds.
    folder = name.rpartition("/")[0]
    above, _, class_name = folder.rpartition("/")
    return ImageEntry(class_name, name, PART_NAMES.get(above.rpartition("/")[2].lower(), ""))


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
        from tl_core.data.digits import write_digits

        return write_digits(spec, data_dir)
    if spec == "eurosat":
        return _download_eurosat(data_dir)
    path = Path(os.path.expanduser(spec))  # noqa: PTH111 - unlike Path's, these two never raise
    if not os.path.exists(path):  # noqa: PTH110
        raise InputError(f"no data at {spec!r}; allowed is a folder, a .zip, .tar or .csv, or {', '.join(BUILT_IN)}")
    if path.is_dir() or is_archive(path) or path.suffix.lower() == ".csv":
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
    for name, error in walk_images(root):
        if error is not None:
            raise InputError(f"folder {error.filename} cannot be read ({error.strerror})") from error
        names.append(name)
        stamps.append(_file_stamp(root / name))
    return names, stamps


def _file_stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # a dangling link: listed, and reported as unreadable when it is read
        return "missing"
    return f"{status.st_size}:{status.st_mtime_ns}"
