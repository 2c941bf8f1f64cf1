"""`python -m serving`: one command from pictures to a table, and a sentence for what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.conftest import below, read_csv

ROOT = Path(__file__).resolve().parents[2]


def serve(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    command = [sys.executable, "-W", "error", "-m", "serving", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_line_writes_the_table(model_file: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out.csv"
    done = serve(model_file, pictures, output, "--top_k", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"12 images, 0 unreadable: {output}",
        "accuracy 100.0 % (75.8 to 100.0) on the 12 images in folders that are named like a class",
    ]
    rows = read_csv(output)
    assert list(rows[0]) == ["file", "label", "probability", "unlike", "error", "label_2", "probability_2"]
    assert all(len(row[name]) <= len("0.1234") for row in rows for name in row if name.startswith("probability"))
    assert all(Path(row["file"]).parent.name == row["label"] for row in rows)


def test_an_unreadable_file_makes_the_exit_code_2_and_the_table_is_complete(
    model_file: Path, two_broken: Path, tmp_path: Path
) -> None:
    done = serve(model_file, two_broken, tmp_path / "out.csv", "--min_probability", "1")
    assert done.returncode == 2
    assert "14 images, 2 unreadable, 12 without label" in done.stdout
    rows = read_csv(tmp_path / "out.csv")
    assert [row["file"] for row in rows] == below(two_broken)
    assert sum(bool(row["error"]) for row in rows) == 2


def test_the_last_line_counts_what_looks_like_no_class(wary_file: Path, two_dark: Path, tmp_path: Path) -> None:
    done = serve(wary_file, two_dark, tmp_path / "out.csv")
    summary = f"15 images, 1 unreadable, 2 look like none of the classes: {tmp_path / 'out.csv'}"
    assert done.stdout.splitlines()[0] == summary
    assert [row["unlike"] for row in read_csv(tmp_path / "out.csv")].count("true") == 2


def test_pictures_are_drawn_where_they_are_asked_for(model_file: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "blue" / "000.png").rename(pictures / "red" / "blue.png")  # a mistake, whatever the model says
    done = serve(model_file, pictures, tmp_path / "out.csv", "--pictures", tmp_path / "album")
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 pictures in " in done.stdout
    assert len(list((tmp_path / "album").glob("*.png"))) == 13
    assert (tmp_path / "album" / "mistakes.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("model_name", "images", "output", "reason"),
    [
        ("missing.onnx", "pictures", "out.csv", "no model file at"),
        ("broken.onnx", "pictures", "out.csv", "is not a readable ONNX model"),
        ("model.onnx", "missing", "out.csv", "no images at"),
        ("model.onnx", "empty", "out.csv", "no images found in"),
        ("model.onnx", "pictures", "out.txt", "it must end in .csv"),
        ("model.onnx", "pictures", "broken.onnx/out.csv", "cannot be written"),
    ],
)
@pytest.mark.usefixtures("model_file", "pictures")
def test_bad_input_is_2_and_one_sentence(
    model_name: str, images: str, output: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.onnx").write_text("no model")
    done = serve(tmp_path / model_name, tmp_path / images, tmp_path / output)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ")
    assert reason in sentence
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--top_k", "0"), ("--top_k", "10001"), ("--top_k", "many"), ("--min_probability", "1.5"), ("--workers", "-1")],
)
def test_an_option_without_sense_is_refused(option: str, value: str, tmp_path: Path) -> None:
    done = serve("model.onnx", tmp_path, tmp_path / "out.csv", option, value)
    assert done.returncode == 2
    assert f"argument {option}: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_reader_that_leaves_and_a_console_without_letters_end_nothing(
    encoding: str, model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "αβγ.csv"
    command = [sys.executable, "-W", "error", "-m", "serving", str(model_file), str(pictures), str(output)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipe) as process:  # type: ignore[call-overload]
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")
    assert len(read_csv(output)) == 12
