"""Predictions as rows: the same in every kind of table, and complete whatever a file is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from serving.tables import Prediction, check_kind, join_parts, read_table, write_part
from tests.serving.conftest import read_csv
from tl_core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SURE = Prediction("a.png", "red", (("red", 0.75), ("blue", 0.25)))
UNSURE = Prediction("b.png", "", (("red", 0.5), ("blue", 0.5)))
BROKEN = Prediction("c.png", "", (), "truncated")
FOREIGN = Prediction("d.png", "red", (("red", 1.0), ("blue", 0.0)), unlike=True)
KNOWN = Prediction("e.png", "red", (("red", 1.0), ("blue", 0.0)), unlike=False)

every_kind = pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])


def written(parts: list[list[Prediction]], kind: str, folder: Path, top_k: int = 2) -> list[dict[str, Any]]:
    """Write parts, join them, and read the table back."""
    paths = [folder / f"part{index}.{kind}" for index in range(len(parts))]
    for part, path in zip(parts, paths, strict=True):
        write_part(part, path, top_k)
    table = folder / f"table.{kind}"
    join_parts(paths, table, top_k)
    if kind == "csv":
        return list(read_csv(table))
    if kind == "parquet":
        return list(pq.read_table(table).to_pylist())
    return [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]


def test_a_row_has_label_probability_error_and_the_ranks() -> None:
    assert SURE.row(2) == {
        "file": "a.png",
        "label": "red",
        "probability": 0.75,
        "unlike": None,
        "error": "",
        "label_2": "blue",
        "probability_2": 0.25,
    }


def test_a_row_without_label_keeps_its_probabilities() -> None:
    row = UNSURE.row(1, abstains=True)
    assert (row["label"], row["probability"], row["label_1"]) == ("", 0.5, "red")


@every_kind
def test_the_best_class_is_known_where_its_label_was_withheld(kind: str, tmp_path: Path) -> None:
    table = tmp_path / f"table.{kind}"
    write_part([UNSURE, SURE, BROKEN], tmp_path / f"part.{kind}", 2, abstains=True)
    join_parts([tmp_path / f"part.{kind}"], table, 2, abstains=True)
    assert list(read_table(table)) == [UNSURE, SURE, BROKEN]


def test_probabilities_have_four_digits() -> None:
    row = Prediction("a.png", "red", (("red", 0.123449), ("blue", 0.1 + 0.2))).row(2)
    assert (row["probability"], row["probability_2"]) == (0.1234, 0.3)


def test_ranks_beyond_the_classes_are_empty() -> None:
    row = SURE.row(3)
    assert (row["label_3"], row["probability_3"]) == ("", None)


@every_kind
def test_an_unreadable_file_has_a_reason_and_no_number(kind: str, tmp_path: Path) -> None:
    (row,) = written([[BROKEN]], kind, tmp_path)
    assert (row["file"], row["label"], row["error"]) == ("c.png", "", "truncated")
    assert row["probability"] == ("" if kind == "csv" else None)


@every_kind
def test_parts_are_joined_in_their_order(kind: str, tmp_path: Path) -> None:
    rows = written([[SURE, BROKEN], [], [UNSURE, SURE]], kind, tmp_path)
    assert [row["file"] for row in rows] == ["a.png", "c.png", "b.png", "a.png"]
    assert list(rows[0]) == list(SURE.row(2))


@pytest.mark.parametrize("top_k", [1, 3])
def test_all_kinds_hold_the_same(top_k: int, tmp_path: Path) -> None:
    parts = [[SURE, FOREIGN], [KNOWN, UNSURE, BROKEN]]
    from_jsonl = written(parts, "jsonl", tmp_path, top_k)
    assert written(parts, "parquet", tmp_path, top_k) == from_jsonl
    texts = {None: "", True: "true", False: "false"}
    as_text = [
        {
            name: texts[value] if value is None or value is True or value is False else str(value)
            for name, value in row.items()
        }
        for row in from_jsonl
    ]
    assert written(parts, "csv", tmp_path, top_k) == as_text


@every_kind
def test_what_looks_like_no_class_is_true_or_false_or_empty(kind: str, tmp_path: Path) -> None:
    rows = written([[FOREIGN, KNOWN, SURE, BROKEN]], kind, tmp_path)
    expected = ["true", "false", "", ""] if kind == "csv" else [True, False, None, None]
    assert [row["unlike"] for row in rows] == expected
    assert list(rows[0])[:5] == ["file", "label", "probability", "unlike", "error"]


def test_a_table_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    heading = "file,label,probability,error,label_1,probability_1"
    (tmp_path / "old.csv").write_text(f"{heading}\na.png,red,0.5,,red,0.5\nb.png,,0.4,,red,0.4\n")
    expected = [Prediction("a.png", "red", (("red", 0.5),)), Prediction("b.png", "", (("red", 0.4),))]
    assert list(read_table(tmp_path / "old.csv")) == expected


@every_kind
def test_a_table_is_read_back_as_it_was_written(kind: str, tmp_path: Path) -> None:
    rows = [
        Prediction("größe/図\n.png", "nan", (("nan", 0.75), ("1", 0.25))),
        Prediction("b.png", "", (("", 0.5), ("nan", 0.5))),
        BROKEN,
        FOREIGN,
        KNOWN,
    ]
    written([rows[:2], rows[2:]], kind, tmp_path, top_k=3)
    assert list(read_table(tmp_path / f"table.{kind}")) == rows


AWKWARD = ['comma, quote " and\nline.png', "größe/図.png", "=1+1.png"]


@every_kind
@pytest.mark.parametrize("name", AWKWARD, ids=ascii)
def test_every_name_that_a_file_can_have_is_written(name: str, kind: str, tmp_path: Path) -> None:
    (row,) = written([[Prediction(name, "red", (("red", 0.5),))]], kind, tmp_path)
    assert row["file"] == name


@every_kind
def test_names_that_are_no_text_stay_apart(kind: str, tmp_path: Path) -> None:
    names = [os.fsdecode(b"\xff.png"), os.fsdecode(b"\xfe.png")]
    rows = written([[Prediction(name, "", ()) for name in names]], kind, tmp_path)
    assert [row["file"] for row in rows] == ["\\udcff.png", "\\udcfe.png"]


def test_a_csv_file_is_utf8_in_every_locale(tmp_path: Path) -> None:
    code = f"from serving.tables import *; write_part([Prediction({'größe/図.png'!a}, '', ())], Path('a.csv'), 1)"
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | locale, check=True, timeout=60)
    assert "größe/図.png" in (tmp_path / "a.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["out.txt", "out", "out.csv.gz"])
def test_another_kind_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"it must end in \.csv, \.jsonl or \.parquet"):
        check_kind(Path(name))


@pytest.mark.parametrize("name", ["out.CSV", "out.jsonl", "out.parquet"])
def test_a_known_kind_is_accepted(name: str) -> None:
    check_kind(Path(name))


def test_parquet_without_pyarrow_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"out.parquet needs the package pyarrow, .*; csv needs nothing"):
        check_kind(Path("out.parquet"))
