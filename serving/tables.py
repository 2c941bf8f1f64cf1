"""Predictions as csv, jsonl or parquet: one row per file, the same columns in each.

No number is in a row twice: the best class is `label` with `probability`, the next ones follow from the second on.
Where labels may be withheld, `label_1` names the best class all the same.

Names are written as they are, for programs that look them up: a file called `=1+1.png` has a cell that a spreadsheet
takes for a formula. Whoever opens tables of foreign names in one imports the columns as text.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core.errors import InputError
from tl_core.images.files import as_utf8
from tl_core.images.tables import import_parquet

SUFFIXES = (".csv", ".jsonl", ".parquet")

Value = str | float | bool | None

_VALUES: Mapping[str, bool | None] = {"true": True, "false": False, "": None}
"""Values of a csv's cells, which has no types of its own."""
_DIGITS = 4
"""Digits of a probability after the point: no more of them mean anything."""
_TEXTS: Mapping[Value, str] = {value: text for text, value in _VALUES.items()}


@dataclass(frozen=True)
class Prediction:
    """Prediction for one file, or the reason why there is none.

    Attributes:
        label: the most probable class; empty if it was abstained from, or the file is unreadable.
        top: class names with probabilities, most probable first; empty if the file is unreadable.
        error: the reason; empty if the file was read.
        unlike: whether the image looks like none of the classes; None if the model has no threshold for it, or the
            file is unreadable.
    """

    file: str
    label: str
    top: tuple[tuple[str, float], ...]
    error: str = ""
    unlike: bool | None = None

    def row(self, top_k: int, *, abstains: bool = False) -> dict[str, Value]:
        """As a row of a table: file, label, probability, unlike, error, then the ranks from 2 on.

        Args:
            top_k: number of ranks.
            abstains: whether labels may be withheld; then `label_1` is the best class in any case.
        """
        ranks: list[tuple[str, float | None]] = [(name, round(value, _DIGITS)) for name, value in self.top]
        ranks += [("", None)] * (max(1, top_k) - len(ranks))
        row: dict[str, Value] = {"file": as_utf8(self.file), "label": self.label}
        row |= {"probability": ranks[0][1], "unlike": self.unlike, "error": self.error}
        row |= {"label_1": ranks[0][0]} if abstains else {}
        for rank, (name, value) in enumerate(ranks[1:top_k], start=2):
            row |= {f"label_{rank}": name, f"probability_{rank}": value}
        return row


def check_kind(output: Path) -> None:
    """Raise `InputError` unless tables of this kind can be written here."""
    if output.suffix.lower() not in SUFFIXES:
        raise InputError(f"output is {output}; it must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if output.suffix.lower() == ".parquet":
        import_parquet(str(output))


def write_part(predictions: Sequence[Prediction], path: Path, top_k: int, *, abstains: bool = False) -> None:
    """Write some rows, as one of the parts that `join_parts` makes a table of; the options are those of a row."""
    rows = [prediction.row(top_k, abstains=abstains) for prediction in predictions]
    names = columns(top_k, abstains=abstains)
    if path.suffix == ".parquet":
        import pyarrow as pa

        table = pa.Table.from_pylist(rows, _schema(names))
        import_parquet(str(path)).write_table(table, path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            csv.DictWriter(file, names).writerows(row | {"unlike": _TEXTS[row["unlike"]]} for row in rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def join_parts(parts: Iterable[Path], output: Path, top_k: int, *, abstains: bool = False) -> None:
    """Write one table of parts, in their order."""
    names = columns(top_k, abstains=abstains)
    if output.suffix == ".parquet":
        parquet = import_parquet(str(output))
        with parquet.ParquetWriter(output, _schema(names)) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part))
        return
    with output.open("wb") as file:
        if output.suffix == ".csv":
            file.write((",".join(names) + "\r\n").encode())
        for part in parts:
            with part.open("rb") as rows:
                shutil.copyfileobj(rows, file)


def read_table(path: Path) -> Iterator[Prediction]:
    """The predictions of a table, row by row; those of earlier versions too."""
    for row in _read_rows(path):
        top = [] if row["error"] else [(str(row["label"] or row.get("label_1") or ""), float(row["probability"]))]
        for rank in itertools.count(2):
            if row.get(f"probability_{rank}") in (None, ""):
                break
            top.append((str(row[f"label_{rank}"]), float(row[f"probability_{rank}"])))
        cell = row.get("unlike")  # tables of earlier versions have no such column
        unlike = _VALUES[cell] if isinstance(cell, str) else cell
        yield Prediction(row["file"], row["label"], tuple(top), row["error"], unlike)


def _read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix.lower() == ".parquet":
        with import_parquet(str(path)).ParquetFile(path) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
        return
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file) if path.suffix.lower() == ".csv" else map(json.loads, file)


def columns(top_k: int, *, abstains: bool = False) -> list[str]:
    """Names of a table's columns, in their order."""
    return list(Prediction("", "", ()).row(top_k, abstains=abstains))


def _schema(names: Sequence[str]) -> Any:
    import pyarrow as pa

    kinds = {"unlike": pa.bool_(), "probability": pa.float64()}  # by the first word of a column's name
    return pa.schema([(name, kinds.get(name.split("_")[0], pa.string())) for name in names])
