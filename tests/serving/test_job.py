"""A table of predictions: all of it or nothing, every file exactly once, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from serving import job
from serving.batch import Options
from serving.job import Outcome, check_output, write_predictions
from serving.model import OnnxClassifier
from serving.sources import open_source
from serving.tables import read_table
from tests.serving.conftest import METADATA, below, read_csv, write_model
from tl_core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = Options(top_k=2, batch_size=2)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "PART_FILES", 5)


def write(model: OnnxClassifier, folder: Path, output: Path, options: Options = OPTIONS) -> Outcome:
    with open_source(str(folder)) as source:
        return write_predictions(model, source, output, options)


class Stopped(BaseException):
    """As Ctrl-C, but not taken by pytest for its own."""


def interrupt(model: OnnxClassifier, folder: Path, output: Path, after: int, options: Options = OPTIONS) -> None:
    """Write until so many files are done."""
    done = 0

    def progress(n_files: int) -> None:
        nonlocal done
        done += n_files
        if done > after:
            raise Stopped

    with open_source(str(folder)) as source, pytest.raises(Stopped):
        write_predictions(model, source, output, options, progress)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_has_every_file_once_and_counts_the_unreadable(
    kind: str, model: OnnxClassifier, two_broken: Path, tmp_path: Path
) -> None:
    output = tmp_path / f"table.{kind}"
    assert write(model, two_broken, output) == Outcome(files=14, resumed=0, unreadable=2, abstained=0)
    assert output.is_file()
    assert hidden(tmp_path) == []
    if kind == "csv":
        assert [row["file"] for row in read_csv(output)] == below(two_broken)


def test_there_is_no_column_for_a_class_that_there_is_not(
    model: OnnxClassifier, pictures: Path, tmp_path: Path
) -> None:
    write(model, pictures, tmp_path / "out.csv", replace(OPTIONS, top_k=9))
    heading = (tmp_path / "out.csv").read_text().splitlines()[0].split(",")
    assert [name for name in heading if name.startswith("label_")] == ["label_2", "label_3"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("after", "resumed"), [(0, 0), (4, 0), (6, 5), (9, 5), (13, 10)])
def test_an_interrupted_table_is_continued_to_the_same_bytes(
    kind: str, after: int, resumed: int, model: OnnxClassifier, two_broken: Path, tmp_path: Path
) -> None:
    write(model, two_broken, tmp_path / f"undisturbed.{kind}")
    output = tmp_path / f"table.{kind}"
    interrupt(model, two_broken, output, after)
    assert not output.exists()
    assert write(model, two_broken, output) == Outcome(files=14, resumed=resumed, unreadable=2, abstained=0)
    assert output.read_bytes() == (tmp_path / f"undisturbed.{kind}").read_bytes()
    assert hidden(tmp_path) == []


def test_an_interrupted_table_leaves_the_earlier_one(model: OnnxClassifier, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("an earlier table")
    interrupt(model, pictures, tmp_path / "table.csv", 6)
    assert (tmp_path / "table.csv").read_text() == "an earlier table"


def test_what_was_abstained_from_is_counted(model: OnnxClassifier, two_broken: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, min_probability=1.0)
    interrupt(model, two_broken, tmp_path / "table.csv", 6, options)
    assert write(model, two_broken, tmp_path / "table.csv", options) == Outcome(14, 5, 2, 12)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_what_looks_like_no_class_is_counted_in_resumed_parts_too(
    kind: str, wary: OnnxClassifier, two_dark: Path, tmp_path: Path
) -> None:
    interrupt(wary, two_dark, tmp_path / f"table.{kind}", 9)
    assert write(wary, two_dark, tmp_path / f"table.{kind}") == Outcome(15, 5, 1, 0, unlike=2)
    found = [Path(row.file).name for row in read_table(tmp_path / f"table.{kind}") if row.unlike]
    assert found == ["dark.png", "darker.png"]


def removed(pictures: Path) -> None:
    (pictures / "blue" / "001.png").unlink()


def added(pictures: Path) -> None:
    (pictures / "blue" / "001a.png").write_bytes((pictures / "blue" / "001.png").read_bytes())


def changed(pictures: Path) -> None:
    (pictures / "blue" / "001.png").write_bytes((pictures / "red" / "001.png").read_bytes())


@pytest.mark.parametrize("change", [removed, added, changed])
def test_files_that_change_in_between_are_predicted_as_they_are(
    change: object, model: OnnxClassifier, pictures: Path, tmp_path: Path
) -> None:
    interrupt(model, pictures, tmp_path / "table.csv", 11)
    assert callable(change)
    change(pictures)
    outcome = write(model, pictures, tmp_path / "table.csv")
    rows = read_csv(tmp_path / "table.csv")
    assert [row["file"] for row in rows] == below(pictures)
    write(model, pictures, tmp_path / "fresh.csv")
    assert [row["label"] for row in rows] == [row["label"] for row in read_csv(tmp_path / "fresh.csv")]
    assert outcome.resumed == (5 if change is changed else 0)  # names after it have moved to other parts


@pytest.mark.parametrize(
    "options", [replace(OPTIONS, top_k=3), replace(OPTIONS, min_probability=0.5)], ids=["top_k", "min_probability"]
)
def test_parts_of_another_setting_are_not_used(
    options: Options, model: OnnxClassifier, pictures: Path, tmp_path: Path
) -> None:
    interrupt(model, pictures, tmp_path / "table.csv", 11)
    assert write(model, pictures, tmp_path / "table.csv", options).resumed == 0


def test_parts_of_another_model_are_not_used(model: OnnxClassifier, pictures: Path, tmp_path: Path) -> None:
    interrupt(model, pictures, tmp_path / "table.csv", 11)
    other = write_model(tmp_path / "other.onnx", METADATA | {"resize_rule": "stretch"})
    assert write(OnnxClassifier.load(other), pictures, tmp_path / "table.csv").resumed == 0


def test_parts_do_not_depend_on_the_workers(model: OnnxClassifier, pictures: Path, tmp_path: Path) -> None:
    interrupt(model, pictures, tmp_path / "table.csv", 11)
    assert write(model, pictures, tmp_path / "table.csv", replace(OPTIONS, workers=3)).resumed == 10


def test_a_file_that_a_table_names_often_has_as_many_rows(
    model: OnnxClassifier, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "t.csv").write_text("path\n" + "red/000.png\n" * 12)
    assert write(model, pictures / "t.csv", tmp_path / "table.csv").files == 12
    assert len(read_csv(tmp_path / "table.csv")) == 12


def test_two_processes_do_not_write_one_table(model: OnnxClassifier, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.csv"

    def meddle(_: int) -> None:
        with pytest.raises(InputError, match="is being written by another process"):
            write(model, pictures, output)

    with open_source(str(pictures)) as source:
        write_predictions(model, source, output, OPTIONS, meddle)
    assert len(read_csv(output)) == 12


def test_a_disk_that_is_full_is_one_sentence(
    model: OnnxClassifier, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "write_part", full)
    with pytest.raises(InputError, match=r"table.csv cannot be written \(No space left on device\)"):
        write(model, pictures, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_a_table_may_be_read_by_whoever_may_read_a_new_file(
    model: OnnxClassifier, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").touch()
    write(model, pictures, tmp_path / "table.csv")
    assert oct((tmp_path / "table.csv").stat().st_mode) == oct((tmp_path / "new").stat().st_mode)


def test_a_good_output_is_accepted_and_its_folder_made(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "folder" / "out.CSV")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder.csv", "is a folder; give a file name"),
        ("file/out.csv", "cannot be written"),
        ("x" * 300 + ".csv", "cannot be written"),
    ],
    ids=["folder", "parent_is_a_file", "name_too_long"],
)
def test_an_output_that_cannot_be_written_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as raised:
        check_output(tmp_path / name)
    assert reason in str(raised.value)


def serve(*arguments: Path | str) -> list[str]:
    """The command line as a user would write it."""
    return [sys.executable, "-W", "error", "-m", "serving", *map(str, arguments)]


def test_killed_in_the_middle_the_same_command_gives_every_file_once(
    model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    links = tmp_path / "links"
    for index in range(8_000):
        folder = links / f"{index % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:05d}.png").symlink_to(pictures / "red" / f"{index % 4:03d}.png")
    output = tmp_path / "out.csv"
    command = serve(model_file, links, output)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        while len(list((tmp_path / ".out.csv.parts").glob("*.1024.0.0.0.csv"))) < 3:
            assert process.poll() is None, "it was done before it could be killed"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "8,000 images, 0 unreadable, " in done.stdout
    assert " of an earlier call" in done.stdout
    assert [row["file"] for row in read_csv(output)] == below(links)
    assert hidden(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_does_not_grow_with_the_number_of_files(model_file: Path, pictures: Path, tmp_path: Path) -> None:
    def peak_after(n_files: int) -> int:
        links = tmp_path / f"links{n_files}"
        links.mkdir()
        for index in range(n_files):
            os.symlink(pictures / "red" / f"{index % 4:03d}.png", links / f"{index:06d}.png")  # noqa: PTH211
        process = subprocess.Popen(serve(model_file, links, tmp_path / f"{n_files}.csv"), cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # waited for behind its back
        assert process.returncode == 0
        return usage.ru_maxrss

    few, many = peak_after(2_000), peak_after(100_000)
    assert len(read_csv(tmp_path / "100000.csv")) == 100_000
    assert many < 1.1 * few
