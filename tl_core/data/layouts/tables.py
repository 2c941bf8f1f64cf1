"""A table of image files and labels, with the images beside it or in folders below: the layout of ISIC and ChestX-ray.

The label is a column, or one column per class of which exactly one holds 1 (ISIC). File names may lack their
folder and their suffix, as long as they are unambiguous. A column split says train, val or test, and a column group
what an image shows (a patient, plant or video), whose images belong together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tl_core.data.classes.levels import PART_NAMES
from tl_core.data.classes.names import MISSING_LABELS, tidy_class_names
from tl_core.data.layouts.listing import ImageEntry, ImageListing, Layout, order, signature
from tl_core.errors import InputError
from tl_core.images.files import file_stamp
from tl_core.images.paths import ImagePaths, split_path
from tl_core.images.tables import TABLE_SUFFIXES, Table, is_table, open_table

LABEL_COLUMNS = ("label", "class", "category", "dx", "finding labels", "target", "class_name", "choice")
PART_COLUMNS = ("split", "part", "set", "subset")
GROUP_COLUMNS = ("group",)
_SEVERAL = "|"
_NO_PART = "unassigned"
_TRUE_FALSE = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class _Row:
    """One row with a label; `where` names it in sentences."""

    number: int
    file: str
    label: str
    part: str
    group: str


class RowsOfTables:
    """Labelled image files from one or more tables.

    Attributes:
        unlabelled_files: files of rows without a label.
    """

    def __init__(self, root: Path) -> None:
        self.unlabelled_files: set[str] = set()
        self._root = root
        self._entries: dict[str, tuple[ImageEntry, str]] = {}
        self._facts: list[str] = []
        self._notices: list[str] = []

    def add(self, path: Path, part: str = "") -> None:
        """Read a table, whose paths count from its own folder.

        Rows with several labels and rows without a file are kept with a fault: which of them matter is the caller's
        decision. Rows without a label are left out, and rows that say the same as an earlier one.

        Args:
            part: train, val or test, where the table has no such column.

        Raises:
            InputError: not a readable table, no column of files or labels, two labels of one image, or a path that
                leaves the folder.
        """
        table = open_table(path)
        self._notices += table.notices
        self._facts.append(file_stamp(path))
        paths = ImagePaths(path.parent)
        folder = path.parent.relative_to(self._root).as_posix() if path.parent != self._root else ""
        n_rows = n_unlabelled = n_doubled = 0
        for row in _rows(table):
            n_rows += 1
            where = f"row {row.number} of {path}"
            if row.label in MISSING_LABELS:
                n_unlabelled += 1
                self.unlabelled_files.update(_below(folder, name) for name in paths.find(row.file, table.encoding))
                continue
            name, fault = _find_file(paths, row.file, where, table.encoding)
            several = f"several labels, {row.label!r}" if _SEVERAL in row.label else ""
            entry = ImageEntry(row.label, _below(folder, name), row.part or part, fault or several, row.group)
            n_doubled += self._keep(entry, where)
        if n_rows == 0:
            raise InputError(f"{path} has no rows; expected a heading and one row per image")
        if n_unlabelled:
            self._notices.append(f"{path}: rows without a label, left out: {n_unlabelled:,}")
        if n_doubled:
            self._notices.append(f"{path}: rows that repeat an earlier one, counted once: {n_doubled:,}")

    def _keep(self, entry: ImageEntry, where: str) -> bool:
        """Keep an entry unless an earlier row said the same; returns whether one did."""
        if entry.name not in self._entries:
            self._entries[entry.name] = entry, where
            return False
        earlier, before = self._entries[entry.name]
        if earlier != entry:
            old, new = (_said(one, entry, earlier) for one in (earlier, entry))
            raise InputError(
                f"{where} says that {entry.name} is {new}, {before} that it is {old}; expected one row per image"
            )
        return True

    def listing(self, spec: str) -> ImageListing:
        """Return the labelled images.

        Raises:
            InputError: class names that may be one class or several.
        """
        entries = _without_several([entry for entry, _ in self._entries.values()])
        if not entries:
            raise InputError(f"{spec} has no row with a label; expected one row per image")
        names, notices = tidy_class_names(spec, {entry.class_name for entry in entries if not entry.fault})
        named = [replace(one, class_name=names.get(one.class_name, one.class_name)) for one in entries]
        stamps = [entry.fault or file_stamp(self._root / entry.name) for entry in entries]
        facts = [*self._facts, *stamps, "rules 2"]
        ordered = tuple(sorted(named, key=order))
        return ImageListing(self._root, ordered, signature(Path(spec), facts), (*self._notices, *notices))


def _said(entry: ImageEntry, *both: ImageEntry) -> str:
    """Return what a row says of an image that another one contradicts."""
    if len({one.class_name for one in both}) > 1:
        return repr(entry.class_name)
    if len({one.part for one in both}) > 1:
        return f"in part {entry.part or 'none'}"
    return f"in group {entry.group or 'none'}"


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _find_file(paths: ImagePaths, text: str, where: str, encoding: str) -> tuple[str, str]:
    """Return the file that a row names, and the reason why there is none."""
    found = paths.find(text, encoding)
    if len(found) > 1:
        raise InputError(f"{where} names {text.strip()!r}, which may be {found[0]} or {found[1]}; give the path")
    if found:
        return found[0], ""
    parts, is_foreign = split_path(text)
    if not parts or is_foreign:
        raise InputError(f"{where}: expected a path below the table's folder, got {text.strip()!r}")
    return "/".join(parts), "no such file"


def _without_several(entries: list[ImageEntry]) -> list[ImageEntry]:
    """Mark labels that join labels of other rows, such as `cat,dog`: they are several, and no class of their own."""
    labels = {entry.class_name for entry in entries}
    joined = {
        label
        for label in labels
        if len(pieces := [piece.strip() for piece in re.split("[,;]", label)]) > 1 and all(p in labels for p in pieces)
    }
    return [
        replace(entry, fault=entry.fault or f"several labels, {entry.class_name!r}")
        if entry.class_name in joined
        else entry
        for entry in entries
    ]


def _rows(table: Table) -> Iterator[_Row]:
    if not table.columns:
        raise InputError(f"{table.path} has no rows; expected a heading and one row per image")
    files = table.file_column()
    part, group = table.find(PART_COLUMNS), table.find(GROUP_COLUMNS)
    label, read_label = _label_reader(table, (files, part, group))
    positions = [files, *label, *(position for position in (part, group) if position is not None)]
    for number, cells in table.select(positions):
        rest = iter(cells[1 + len(label) :])
        where = f"row {number} of {table.path}"
        part_name = _part(next(rest), where) if part is not None else ""
        group_name = next(rest).strip() if group is not None else ""
        yield _Row(number, cells[0], read_label(cells[1 : 1 + len(label)]), part_name, group_name)


def _label_reader(table: Table, others: Sequence[int | None]) -> tuple[Sequence[int], Callable[[Sequence[str]], str]]:
    """Return the columns that say an image's class, and the function from their cells to it."""
    column = table.find(LABEL_COLUMNS)
    if column is not None:
        return [column], lambda cells: cells[0].strip()
    classes = [
        position for position in range(len(table.columns)) if position not in others and not table.is_index(position)
    ]
    names = [table.columns[position] for position in classes]

    def read_label(cells: Sequence[str]) -> str:
        found = _find_one(cells)
        if found is None:
            raise InputError(
                f"{table.path} has no column of labels; expected one of {', '.join(LABEL_COLUMNS)}, or one column per "
                f"class with a single 1 in each row, got {table.described()}"
            )
        return names[found]

    return classes, read_label


def _find_one(cells: Sequence[str]) -> int | None:
    """Return the position of the 1 among zeros, or None for other cells."""
    try:
        row = [_TRUE_FALSE.get(cell.strip().lower()) for cell in cells]
        numbers = [
            float(cell.replace(",", ".")) if known is None else known for cell, known in zip(cells, row, strict=True)
        ]
    except ValueError:
        return None
    is_one_hot = len(numbers) > 1 and sorted(numbers) == [0.0] * (len(numbers) - 1) + [1.0]
    return numbers.index(1.0) if is_one_hot else None


def _part(text: str, where: str) -> str:
    part = "" if text.strip().lower() == _NO_PART else PART_NAMES.get(text.strip().lower())
    if part is None:
        raise InputError(f"{where}: expected a part train, val or test, got {text!r}")
    return part


def _list_table(spec: str, data_dir: Path, level: int) -> ImageListing:  # noqa: ARG001 - nothing is cached
    table = Path(spec)
    rows = RowsOfTables(table.parent)
    rows.add(table)
    return rows.listing(spec)


LAYOUT = Layout(
    f"a table ({', '.join(TABLE_SUFFIXES)})", lambda spec: is_table(Path(spec)) and Path(spec).is_file(), _list_table
)
