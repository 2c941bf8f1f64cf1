"""The page on formats: `prepare` prints for each of its examples what stands beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.configs.fields import make_config
from pipelines.prepare import PrepareConfig, run
from pipelines.reports.origin import origin_section
from pipelines.reports.page import Table
from tests.conftest import ROOT
from tests.tl_core.made_formats import contents, put, tarred, zipped
from tl_core.errors import InputError

PAGE = (ROOT / "docs" / "data_formats.md").read_text()
COLUMNS = "| kind | example | `prepare` prints |"


def examples() -> Iterator[tuple[str, str, list[str]]]:
    """Kind, example and printed texts of every row of the page's tables of examples."""
    for table in PAGE.split(COLUMNS)[1:]:
        for row in table.partition("\n\n")[0].splitlines()[2:]:
            kind, example, printed = (cell.strip() for cell in row.strip("|").split(" | "))
            yield kind, example, re.findall("`([^`]*)`", printed)


EXAMPLES = list(examples())


def images(names: list[str]) -> dict[str, bytes]:
    return {name: content if "." in name else b"" for name, content in contents(names).items()}


def make(example: str, folder: Path) -> str:
    """Make an example in a folder; returns its data spec."""
    first, of, rest = example.partition(" of ")
    inside, _, beside = rest.partition(" beside ")
    names = [re.findall("`([^`]*)`", text) for text in (first, inside, beside)]
    if not of:
        put(folder / "data", images(names[0]))
        return "data"
    (name,) = names[0]
    if name.endswith(".zip"):
        return str(zipped(folder / name, images(names[1])).relative_to(folder))
    if ".t" in name and not name.endswith(".tsv"):
        mode = next((f"w:{kind}" for kind in ("gz", "bz2", "xz") if name.endswith(kind)), "w")
        return str(tarred(folder / name, images(names[1]), mode).relative_to(folder))
    root = folder / "data" if "/" in name else folder
    put(root, images(names[2]))
    (root / name).write_text("\n".join(names[1]) + "\n")
    return "data" if "/" in name else name


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of MLflow and its libraries
@pytest.mark.parametrize(("example", "printed"), [row[1:] for row in EXAMPLES], ids=[row[0] for row in EXAMPLES])
def test_prepare_prints_what_the_page_says(
    example: str,
    printed: list[str],
    tmp_path: Path,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = make(example, tmp_path)
    try:
        run(make_config(PrepareConfig, data=spec, image_size=16))
        text = capsys.readouterr().out
    except InputError as error:
        text = str(error)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    counts = [line for line in lines if re.fullmatch(r"\S+ \d+", line)]
    assert printed
    assert counts == [one for one in printed if re.fullmatch(r"\S+ \d+", one)]
    assert [one for one in printed if one not in counts and not any(one in line for line in lines)] == []


def test_the_page_has_examples_of_every_container() -> None:
    found = " ".join(example for _, example, _ in EXAMPLES)
    for suffix in (".zip", ".tar", ".tar.gz", ".tbz2", ".tar.xz", ".csv", ".jsonl"):
        assert f"{suffix}`" in found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of MLflow and its libraries
def test_what_was_left_out_is_a_tag_of_the_run_and_a_row_of_its_page(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    run_id = run(make_config(PrepareConfig, data=make("`cat/a/1.jpg` `dog/2.jpg`", tmp_path), image_size=16))
    found = mlflow.get_run(run_id)
    notice = "data: folders inside the class folders are no classes: a; class_level=2 would make them so"
    assert found.data.tags["data_notices"] == notice
    (table,) = (part for part in origin_section(found).parts if isinstance(part, Table))
    assert ["data images, left out or repaired", notice] in table.rows
