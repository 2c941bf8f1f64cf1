"""Sources of images: a folder, a glob, a table with a column of paths, an archive, one file."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core.errors import InputError
from tl_core.images.decoding import is_image_name
from tl_core.images.files import Reader, archive_names, is_archive, open_archive, read_image_file, walk_images

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class ImageFile:
    """One file to predict.

    Attributes:
        name: as the output calls it.
        stamp: returns what changes when the content may have.
        read: returns the bytes or raises OSError; may be called from several threads.
    """

    name: str
    stamp: Callable[[], str]
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ImageSource:
    """The files to predict, found anew by each call of `files` and in the same order, so that a million fit.

    Attributes:
        files: lists the files.
        count: how many there are.
    """

    files: Callable[[], Iterator[ImageFile]]
    count: int


@contextmanager
def open_source(spec: str, path_column: str = "path") -> Iterator[ImageSource]:
    """Open what a user writes for the images.

    Args:
        spec: a folder (at any depth), a glob (`**` at any depth), a .csv or .parquet file with a column of paths,
            a .zip or uncompressed .tar, or one image. Paths in a table count from the table's folder.
        path_column: name of that column.

    Raises:
        InputError: there is nothing, or no image in it.
    """
    if os.path.isfile(spec) and is_archive(Path(spec)):  # noqa: PTH113 - unlike Path's, false for a name too long
        names = archive_names(Path(spec))
        with open_archive(Path(spec)) as read:
            yield _source(lambda: (_member(spec, name, read) for name in names), spec)
    else:
        yield _source(_lister(spec, path_column), spec)


def _source(files: Callable[[], Iterator[ImageFile]], spec: str) -> ImageSource:
    count = sum(1 for _ in files())
    if count == 0:
        raise InputError(f"no images found in {spec}; expected png, jpg, webp or bmp files")
    return ImageSource(files, count)


def _lister(spec: str, path_column: str) -> Callable[[], Iterator[ImageFile]]:
    if os.path.isdir(spec):  # noqa: PTH112
        return lambda: _folder_files(Path(spec))
    if glob.has_magic(spec) and not os.path.exists(spec):  # noqa: PTH110
        found = sorted(name for name in glob.iglob(spec, recursive=True) if is_image_name(name))  # noqa: PTH207
        return lambda: (_file(Path(name)) for name in found)
    if not os.path.isfile(spec):  # noqa: PTH113
        raise InputError(f"no images at {spec}; expected a folder, a glob, a table of paths, an archive or one image")
    suffix = Path(spec).suffix.lower()
    if suffix in (".csv", ".parquet"):
        column = _csv_column if suffix == ".csv" else _parquet_column
        return lambda: (_file(Path(spec).parent / path) for path in column(spec, path_column))
    if is_image_name(spec):
        return lambda: iter([_file(Path(spec))])
    raise InputError(f"expected a .csv, .parquet, .zip or .tar file, or one image, got {spec}")


def _folder_files(folder: Path) -> Iterator[ImageFile]:
    for name, error in walk_images(folder):
        yield _file(folder / name) if error is None else _unlisted(folder / name, error)


def _file(path: Path) -> ImageFile:
    return ImageFile(str(path), lambda: _stamp(path), lambda: read_image_file(path))


def _unlisted(folder: Path, error: OSError) -> ImageFile:
    def read() -> bytes:
        raise error

    return ImageFile(str(folder), lambda: "unlisted", read)


def _member(archive: str, name: str, read: Reader) -> ImageFile:
    return ImageFile(f"{archive}/{name}", lambda: _stamp(Path(archive)), lambda: read(name))


def _csv_column(table: str, column: str) -> Iterator[str]:
    try:
        with Path(table).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            _refuse_other_columns(table, column, list(rows.fieldnames or ()))
            for row in rows:
                yield row[column] or ""
    except (OSError, csv.Error) as error:
        raise InputError(f"{table} is not a readable csv file ({error})") from error


def _parquet_column(table: str, column: str) -> Iterator[str]:
    parquet = import_parquet(table)
    import pyarrow

    try:
        with parquet.ParquetFile(table) as file:
            _refuse_other_columns(table, column, file.schema_arrow.names)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                yield from (str(path or "") for path in batch.column(0).to_pylist())
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{table} is not a readable parquet file ({error})") from error


def import_parquet(path: str) -> Any:
    """pyarrow's Parquet module, which serving alone does not install.

    Raises:
        InputError: it is not there.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{path} needs the package pyarrow, which is not installed; csv needs nothing") from error
    return pyarrow.parquet


def _refuse_other_columns(table: str, column: str, columns: list[str]) -> None:
    if column not in columns:
        raise InputError(f"{table} has no column {column!r}; its columns are {', '.join(columns) or 'none'}")


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # a broken link, or a name that no file can have
        return type(error).__name__
    return f"{status.st_size}:{status.st_mtime_ns}"
