"""Sources of images: a folder, a glob, a table with a column of paths, an archive, one file."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tl_core.errors import InputError
from tl_core.images.containers.archives import (
    ARCHIVE_KINDS,
    is_archive,
    list_members,
    open_archive,
    say_left_out_members,
)
from tl_core.images.decoding import IMAGE_KINDS, is_image_name
from tl_core.images.files import LeftOut, Reader, file_stamp, read_image_file, say_left_out, walk_images
from tl_core.images.paths import ImagePaths
from tl_core.images.tables import TABLE_SUFFIXES, Table, is_table, open_table


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
        notices: sentences on what was left out or found out.
        root: the folder or archive that was given; empty where it was something else.
    """

    files: Callable[[], Iterator[ImageFile]]
    count: int
    notices: tuple[str, ...] = ()
    root: str = ""


@contextmanager
def open_source(spec: str, path_column: str = "") -> Iterator[ImageSource]:
    """Open what a user writes for the images.

    Args:
        spec: a folder (at any depth), a glob (`**` at any depth), a table (.csv, .tsv, .jsonl or .parquet) with a
            column of paths, a .zip or .tar, compressed or not, or one image. Paths in a table count from the table's
            folder; one that leads nowhere is looked for below it, as training does.
        path_column: name of that column; by default the one that training takes.

    Raises:
        InputError: there is nothing, or no image in it.
    """
    if os.path.isfile(spec) and is_archive(Path(spec)):  # noqa: PTH113 - unlike Path's, false for a name too long
        members = list_members(Path(spec))
        with open_archive(Path(spec)) as read:
            said = say_left_out_members(spec, members)
            yield _source(lambda: (_member(spec, name, read) for name in members.names), spec, said, root=spec)
    elif os.path.isdir(spec):  # noqa: PTH112
        left_out = LeftOut()
        count = sum(1 for _ in walk_images(Path(spec), left_out))
        yield _source(lambda: _folder_files(Path(spec)), spec, say_left_out(spec, left_out.folders), count, spec)
    elif os.path.isfile(spec) and is_table(Path(spec)):  # noqa: PTH113
        table = open_table(Path(spec))
        yield _source(_table_lister(table, path_column), spec, table.notices)
    else:
        yield _source(_lister(spec), spec)


def _source(
    files: Callable[[], Iterator[ImageFile]],
    spec: str,
    notices: Sequence[str] = (),
    count: int | None = None,
    root: str = "",
) -> ImageSource:
    count = sum(1 for _ in files()) if count is None else count
    if count == 0:
        raise InputError(f"no images found in {spec}; expected {IMAGE_KINDS} files")
    return ImageSource(files, count, tuple(notices), root)


def _lister(spec: str) -> Callable[[], Iterator[ImageFile]]:
    if glob.has_magic(spec) and not os.path.exists(spec):  # noqa: PTH110
        found = sorted(name for name in glob.iglob(spec, recursive=True) if is_image_name(name))  # noqa: PTH207
        return lambda: (_file(Path(name)) for name in found)
    if not os.path.isfile(spec):  # noqa: PTH113
        raise InputError(f"no images at {spec}; expected a folder, a glob, a table of paths, an archive or one image")
    if is_image_name(spec):
        return lambda: iter([_file(Path(spec))])
    raise InputError(f"expected a table ({', '.join(TABLE_SUFFIXES)}), {ARCHIVE_KINDS}, or one image, got {spec}")


def _table_lister(table: Table, path_column: str) -> Callable[[], Iterator[ImageFile]]:
    column = table.file_column(path_column)
    below = ImagePaths(table.path.parent)

    def files() -> Iterator[ImageFile]:
        for _, (text,) in table.select([column]):
            yield _named_in_table(table.path.parent, text, below, table.encoding)

    return files


def _named_in_table(folder: Path, text: str, below: ImagePaths, encoding: str) -> ImageFile:
    exact = os.path.join(folder, text.strip())  # noqa: PTH118 - twice as fast as Path, a million times
    if os.path.isfile(exact):  # noqa: PTH113
        return _file(Path(exact))
    found = below.find(text, encoding)
    if len(found) > 1:
        return _unreadable(Path(exact), OSError(f"may be {found[0]} or {found[1]}; give the path"))
    return _file(folder / found[0]) if found else _file(Path(exact))


def _folder_files(folder: Path) -> Iterator[ImageFile]:
    for name, error in walk_images(folder):
        yield _file(folder / name) if error is None else _unreadable(folder / name, error)


def _file(path: Path) -> ImageFile:
    return ImageFile(str(path), lambda: file_stamp(path), lambda: read_image_file(path))


def _unreadable(path: Path, error: OSError) -> ImageFile:
    def read() -> bytes:
        raise error

    return ImageFile(str(path), lambda: str(error), read)


def _member(archive: str, name: str, read: Reader) -> ImageFile:
    return ImageFile(f"{archive}/{name}", lambda: file_stamp(Path(archive)), lambda: read(name))
