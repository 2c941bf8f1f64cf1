"""A csv of image files and labels, with the images beside it or in folders below: the layout of ISIC and ChestX-ray.

The label is a column, or one column per class of which exactly one holds 1 (ISIC). File names may lack their
folder and their suffix, as long as they are unambiguous. A column split says train, val or test, and a column group
what an image shows (a patient, plant or video), whose images belong together.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tl_core.data.layouts.listing import PART_NAMES, ImageEntry, ImageListing, Layout, file_stamp, order, signature
from tl_core.errors import InputError
from tl_core.images.decoding import is_image_name

FILE_COLUMNS = ("image", "image_id", "image index", "path", "file", "filename", "file_name")
LABEL_COLUMNS = ("label", "class", "category", "dx", "finding labels", "target")
PART_COLUMNS = ("split", "part", "set", "subset")
GROUP_COLUMNS = ("group",)
_SEVERAL = "|"


@dataclass(frozen=True)
class CsvRow:
    """One row: a file below the csv's folder and its class; `fault` says why it cannot be used."""

    file: str
    class_name: str
    part: str = ""
    group: str = ""
    fault: str = ""


def read_rows(table: Path) -> list[CsvRow]:
    """Read a csv of image files and labels.

    Rows with several labels, joined by `|`, and rows without a file are kept with a fault: which of them matter is the
    caller's decision.

    Raises:
        InputError: not a readable csv, no column of files or labels, a file twice, or a path that leaves the folder.
    """
    header, records = _read(table)
    columns = {name.strip().lower(): name for name in header}
    file_column = _find(columns, FILE_COLUMNS)
    label_column = _find(columns, LABEL_COLUMNS)
    part_column = _find(columns, PART_COLUMNS)
    group_column = _find(columns, GROUP_COLUMNS)
    if file_column is None:
        raise InputError(
            f"{table} has no column of image files; expected one of {', '.join(FILE_COLUMNS)}, got {', '.join(header)}"
        )
    class_columns = [name for name in header if name not in (file_column, part_column, group_column)]
    if label_column is None and not _is_one_hot(records, class_columns):
        raise InputError(
            f"{table} has no column of labels; expected one of {', '.join(LABEL_COLUMNS)}, or one column per class "
            f"with a single 1 in each row, got {', '.join(header)}"
        )
    files = _Files(table.parent)
    rows: dict[str, CsvRow] = {}
    for number, record in enumerate(records, start=2):
        name = record[file_column].strip()
        if label_column is None:
            label = next(column for column in class_columns if float(record[column]) == 1)
        else:
            label = record[label_column].strip()
        where = f"row {number} of {table}"
        part = _part(record[part_column], where) if part_column else ""
        group = record[group_column].strip() if group_column else ""
        row = replace(_row(files, name, label, where), part=part, group=group)
        if row.file in rows:
            raise InputError(f"{where} names {name!r}, which an earlier row has; expected one row per image")
        rows[row.file] = row
    return list(rows.values())


def _read(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or [])
            records = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a readable csv ({error})") from error
    if not records:
        raise InputError(f"{table} has no rows; expected a heading and one row per image")
    for number, record in enumerate(records, start=2):
        if None in record or None in record.values():
            raise InputError(f"row {number} of {table} has another number of cells than the heading, {len(header)}")
    return header, records


def _find(columns: Mapping[str, str], known: Sequence[str]) -> str | None:
    return next((columns[name] for name in known if name in columns), None)


def _is_one_hot(records: Sequence[Mapping[str, str]], columns: Sequence[str]) -> bool:
    try:
        rows = [[float(record[column]) for column in columns] for record in records]
    except ValueError:
        return False
    return len(columns) > 1 and all(sorted(row) == [0.0] * (len(row) - 1) + [1.0] for row in rows)


def _part(text: str, where: str) -> str:
    part = PART_NAMES.get(text.strip().lower())
    if part is None:
        raise InputError(f"{where}: expected a part train, val or test, got {text!r}")
    return part


def _row(files: _Files, name: str, label: str, where: str) -> CsvRow:
    path = PurePosixPath(name.replace("\\", "/"))
    if not name or path.is_absolute() or ".." in path.parts:
        raise InputError(f"{where}: expected a path below the csv's folder, got {name!r}")
    matches = files.find(path)
    if len(matches) > 1:
        raise InputError(f"{where} names {name!r}, which may be {matches[0]} or {matches[1]}; give the path")
    return CsvRow(matches[0] if matches else str(path), label, fault=_fault(label, matches))


def _fault(label: str, matches: Sequence[str]) -> str:
    if not matches:
        return "no such file"
    if not label:
        return "no label"
    return f"several labels, {label!r}" if _SEVERAL in label else ""


class _Files:
    """The image files below a folder, found by path, by name, or by name without its suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[str, list[str]] | None = None

    def find(self, path: PurePosixPath) -> list[str]:
        if os.path.isfile(self._folder / path):  # noqa: PTH113 - unlike Path.is_file, false for a name that is too long
            return [str(path)]
        if self._by_name is None:
            self._by_name = self._index()
        ends_so = [name for name in self._by_name.get(path.name, ()) if _ends_in(name, path)]
        return sorted(ends_so)

    def _index(self) -> dict[str, list[str]]:
        by_name = defaultdict(list)
        for root, _, names in os.walk(self._folder):
            for name in filter(is_image_name, names):
                relative = Path(root, name).relative_to(self._folder).as_posix()
                for key in {name, Path(name).stem}:
                    by_name[key].append(relative)
        return by_name


def _ends_in(name: str, path: PurePosixPath) -> bool:
    """Return whether the folders that a row gives are the last ones of the file's."""
    wanted = path.parent.parts
    return PurePosixPath(name).parent.parts[-len(wanted) :] == wanted if wanted else True


def _list_table(spec: str, data_dir: Path) -> ImageListing:  # noqa: ARG001 - nothing is cached
    table = Path(spec)
    rows = read_rows(table)
    stamps = [file_stamp(table), *(row.fault or file_stamp(table.parent / row.file) for row in rows)]
    entries = sorted((ImageEntry(row.class_name, row.file, row.part, row.fault, row.group) for row in rows), key=order)
    return ImageListing(table.parent, tuple(entries), signature(table, stamps))


LAYOUT = Layout("a .csv", lambda spec: Path(spec).suffix.lower() == ".csv" and Path(spec).is_file(), _list_table)
