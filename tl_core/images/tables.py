"""Tables of image files, whichever program wrote them: the one reader that training and serving share.

A table is a .csv or .tsv in any of the usual separators and encodings, a .jsonl, or a .parquet. Its cells are text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tl_core.errors import InputError
from tl_core.images.csv_files import FILE_COLUMNS, CsvForm, csv_records, find_csv_form
from tl_core.images.decoding import is_image_name
from tl_core.images.files import name_some

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

_MOST_NAMED = 20
_SAMPLE = 100  # rows that the columns are known by
_ROWS_AT_ONCE = 65_536
_INDEX_NAMES = ("", "unnamed: 0", "__index_level_0__")


@dataclass(frozen=True)
class Table:
    """An opened table.

    Attributes:
        path: its file.
        columns: names from the heading, without spaces around; empty for a column without a name.
        select: from positions of columns to an iterator of (number of the row, its cells); it starts anew every time.
        encoding: that of its text.
        notices: sentences on what was found out, such as that there is no heading.
    """

    path: Path
    columns: tuple[str, ...]
    select: Callable[[Sequence[int]], Iterator[tuple[int, list[str]]]]
    encoding: str = "utf-8"
    notices: tuple[str, ...] = ()

    def find(self, names: Sequence[str]) -> int | None:
        """Return the position of the first of some columns, in any case, or None."""
        lower = [column.lower() for column in self.columns]
        return next((lower.index(name) for name in names if name in lower), None)

    def described(self) -> str:
        """Return the names of the columns for a sentence, the first of many."""
        return name_some(self.columns, _MOST_NAMED) or "none"

    def is_index(self, position: int) -> bool:
        """Return whether a column has no name of its own, as pandas writes the numbers of the rows."""
        return self.columns[position].lower() in _INDEX_NAMES

    def file_column(self, wanted: str = "") -> int:
        """Return the position of the column of image files.

        Args:
            wanted: its name; by default one of `FILE_COLUMNS`, or the column without a name if all of it are images.

        Raises:
            InputError: there is none.
        """
        described = self.described()
        if wanted:
            found = self.find([wanted.lower()])
            if found is None:
                raise InputError(f"{self.path} has no column {wanted!r}; its columns are {described}")
            return found
        found = self.find(FILE_COLUMNS)
        nameless = [position for position in range(len(self.columns)) if self.is_index(position)]
        if found is None and len(nameless) == 1:
            sample = [cells[0] for _, cells in islice(self.select(nameless), _SAMPLE)]
            found = nameless[0] if sample and all(map(is_image_name, sample)) else None
        if found is None:
            raise InputError(
                f"{self.path} has no column of image files; expected one of {', '.join(FILE_COLUMNS)}, got {described}"
            )
        return found


def is_table(path: Path) -> bool:
    """Return whether a path ends like a table."""
    return path.suffix.lower() in TABLE_SUFFIXES


def open_table(path: Path) -> Table:
    """Open a table.

    Raises:
        InputError: it cannot be read, now or while its rows are.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _open_parquet(path)
    if suffix == ".jsonl":
        return _open_json_lines(path)
    form = find_csv_form(path)
    return Table(path, form.columns, _csv_selector(path, form), form.encoding, form.notices)


def _csv_selector(path: Path, form: CsvForm) -> Callable[[Sequence[int]], Iterator[tuple[int, list[str]]]]:
    def select(positions: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
        for number, cells in csv_records(path, form):
            yield number, [cells[position] for position in positions]

    return select


def _open_json_lines(path: Path) -> Table:
    columns: dict[str, None] = {}
    for _, record in islice(_json_records(path), _SAMPLE):
        columns |= dict.fromkeys(record)
    names = list(columns)

    def select(positions: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
        for number, record in _json_records(path):
            yield number, [_as_text(record.get(names[position])) for position in positions]

    return Table(path, tuple(name.strip() for name in names), select)


def _json_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise InputError(f"row {number} of {path}: expected a JSON object, got {line.strip()[:60]!r}")
                    yield number, record
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a readable jsonl file ({error})") from error


def _open_parquet(path: Path) -> Table:
    parquet = import_parquet(str(path))
    import pyarrow

    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} is not a readable parquet file ({error})") from error

    def select(positions: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
        wanted = [names[position] for position in positions]
        try:
            with parquet.ParquetFile(path) as file:
                number = 0
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(dict.fromkeys(wanted))):
                    columns = batch.to_pydict()
                    for cells in zip(*(columns[name] for name in wanted), strict=True):
                        number += 1
                        yield number, list(map(_as_text, cells))
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{path} is not a readable parquet file ({error})") from error

    return Table(path, tuple(name.strip() for name in names), select)


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


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "|".join(map(_as_text, value))
    return str(value)
