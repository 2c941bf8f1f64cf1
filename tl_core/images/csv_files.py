"""Csv files as spreadsheets, databases and programs write them: encoding, separator and heading are found out."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_core.errors import InputError
from tl_core.images.decoding import is_image_name

FILE_COLUMNS = (
    *("image", "image_id", "image index", "path", "file", "filename", "file_name"),
    *("filepath", "file_path", "image_path", "image_name", "img", "img_path"),
)

_SEPARATORS = (",", ";", "\t", "|")
_SAMPLE_CHARACTERS, _SAMPLE_RECORDS = 1 << 20, 100
_CHUNK = 1 << 20
_UNDEFINED = b"\x81\x8d\x8f\x90\x9d"  # bytes that Windows-1252 has no character for
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PART_WORDS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "unassigned", ""})


@dataclass(frozen=True)
class CsvForm:
    """Dialect and columns of a csv file; `heading` is false where the first row is data."""

    encoding: str
    separator: str
    columns: tuple[str, ...]
    heading: bool = True
    skip_spaces: bool = False
    notices: tuple[str, ...] = ()


def find_csv_form(path: Path) -> CsvForm:
    """Find out how a csv file is written.

    Raises:
        InputError: it cannot be read, is no text, or has a first row that no table of images has.
    """
    try:
        encoding = _find_encoding(path)
        with path.open(encoding=encoding, newline="") as file:
            head = file.read(_SAMPLE_CHARACTERS)
            is_cut = file.read(1) != ""
        separator, records = _find_separator(head, is_cut=is_cut)
    except (OSError, UnicodeError, csv.Error) as error:
        raise _unreadable(path, error) from error
    if not records and is_cut:
        raise InputError(
            f"the first row of {path} has more than {_SAMPLE_CHARACTERS:,} characters; expected a heading with a "
            "column of image files and one of labels, and one row per image"
        )
    notices = (f"{path} is no UTF-8, its text is read as {encoding}",) if encoding in ("cp1252", "latin-1") else ()
    if not records:
        return CsvForm(encoding, separator, ())
    spaced = len(records[0]) > 1 and all(cell.startswith(" ") for cell in records[0][1:])
    if not any(map(_is_image_cell, records[0])):
        columns = tuple(cell.strip() for cell in records[0])
        return CsvForm(encoding, separator, columns, skip_spaces=spaced, notices=notices)
    columns = _columns_of(records)
    said = f"{path} has no heading, its columns are taken for {', '.join(filter(None, columns))}"
    return CsvForm(encoding, separator, columns, heading=False, skip_spaces=spaced, notices=(*notices, said))


def csv_records(path: Path, form: CsvForm) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row that is not blank, as many as there are columns.

    Raises:
        InputError: a row has another number of cells, or the file is no csv.
    """
    n_cells = len(form.columns)
    pending = form.heading
    try:
        with path.open(encoding=form.encoding, newline="") as file:
            rows = csv.reader(file, delimiter=form.separator, strict=True, skipinitialspace=form.skip_spaces)
            for number, cells in enumerate(rows, start=1):
                if not any(cell.strip() for cell in cells):
                    continue
                if pending:
                    pending = False
                    continue
                if len(cells) != n_cells and (len(cells) < n_cells or any(map(str.strip, cells[n_cells:]))):
                    first = "the heading" if form.heading else "the first row"
                    raise InputError(f"row {number} of {path} has another number of cells than {first}, {n_cells}")
                yield number, cells[:n_cells]
    except (OSError, UnicodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a readable csv file ({error})")


def _find_encoding(path: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    undefined = False
    is_utf8 = True
    with path.open("rb") as file:
        start = file.read(_CHUNK)
        if marked := next((name for mark, name in _BOMS if start.startswith(mark)), ""):
            return marked
        if b"\0" in start:
            return _without_mark(start)
        chunk = start
        while chunk:
            if b"\0" in chunk:
                raise csv.Error("expected text, got a zero byte")
            undefined = undefined or any(byte in chunk for byte in _UNDEFINED)
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                is_utf8 = False
            chunk = file.read(_CHUNK)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        is_utf8 = False
    return "utf-8" if is_utf8 else "latin-1" if undefined else "cp1252"


def _without_mark(start: bytes) -> str:
    """Return the kind of UTF-16 without a mark: most letters of a heading have a zero byte before or after them."""
    even, odd = start[0:400:2], start[1:400:2]
    if odd.count(0) > 0.8 * len(odd) and not even.count(0):
        return "utf-16-le"
    if even.count(0) > 0.8 * len(even) and not odd.count(0):
        return "utf-16-be"
    raise csv.Error("expected text, got a zero byte")


def _find_separator(head: str, *, is_cut: bool) -> tuple[str, list[list[str]]]:
    """Return the separator under which the first row names its columns best, and the first rows."""
    best: tuple[tuple[bool, bool, bool, int], str, list[list[str]]] | None = None
    for rank, separator in enumerate(_SEPARATORS):
        records = _sample(head, separator, is_cut=is_cut)
        if not records:
            continue
        first = records[0]
        is_known = any(cell.strip().lower() in FILE_COLUMNS or _is_image_cell(cell) for cell in first)
        is_even = len(first) > 1 and all(len(record) == len(first) for record in records)
        key = (is_known, is_even, len(first) > 1, -rank)
        if best is None or key > best[0]:
            best = key, separator, records
    return (best[1], best[2]) if best else (",", [])


def _sample(head: str, separator: str, *, is_cut: bool) -> list[list[str]]:
    records = []
    try:
        for cells in csv.reader(io.StringIO(head, newline=""), delimiter=separator):
            if any(cell.strip() for cell in cells):
                records.append(cells)
            if len(records) > _SAMPLE_RECORDS:
                break
    except csv.Error:  # a cell that is cut, or another separator's
        pass
    return records[: -1 if is_cut or len(records) > _SAMPLE_RECORDS else None]


def _is_image_cell(cell: str) -> bool:
    return is_image_name(cell.strip().replace("\\", "/"))


def _columns_of(records: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Name the columns of a table without a heading by what they hold."""
    names = [f"column {position}" for position in range(1, len(records[0]) + 1)]
    even = [record for record in records if len(record) == len(names)]
    columns = list(zip(*even, strict=True))
    images = [position for position, cells in enumerate(columns) if all(map(_is_image_cell, cells))]
    parts = [
        position
        for position, cells in enumerate(columns)
        if any(cells) and all(cell.strip().lower() in _PART_WORDS for cell in cells)
    ]
    if len(images) == 1:
        names[images[0]] = "image"
    if len(parts) == 1 and len(names) > 2:
        names[parts[0]] = "split"
    blank = [position for position, cells in enumerate(columns) if not any(map(str.strip, cells))]
    for position in blank:
        names[position] = ""
    others = [position for position in range(len(names)) if names[position].startswith("column ")]
    if len(others) == 1:
        names[others[0]] = "label"
    return tuple(names)
