"""A folder of pictures to a table: in order, every file accounted for, all of it or nothing."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from serving.batch import Prediction, check_output, find_images, predict_files, write_csv, write_parquet
from serving.model import OnnxClassifier
from tests.conftest import write_colour_images
from tests.serving.conftest import METADATA, write_model
from tl_core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["file", "label", "probability", "error", "label_2", "probability_2", "label_3", "probability_3"]

Write = Callable[[Iterator[Prediction], Path, int], int]

every_writer = pytest.mark.parametrize("write", [write_csv, write_parquet])


@pytest.fixture
def model(model_file: Path) -> OnnxClassifier:
    """The loaded model."""
    return OnnxClassifier.load(model_file)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures of each colour."""
    return write_colour_images(tmp_path / "pictures", n_per_class=4)


@pytest.fixture
def two_broken(pictures: Path) -> Path:
    """The pictures with a note and half a PNG among the green ones."""
    (pictures / "green" / "000a.jpg").write_text("no picture")
    (pictures / "green" / "half.png").write_bytes((pictures / "red" / "000.png").read_bytes()[:200])
    return pictures


def predicted(model: OnnxClassifier, folder: Path, top_k: int = 5, batch_size: int = 64) -> list[Prediction]:
    return list(predict_files(model, find_images(folder), top_k, batch_size))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_images_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    names = ["a.PNG", "b/c/d.jpg", "b/e.webp", "f.bmp"]
    for name in [*names, "notes.txt", "b/._e.webp", "b/.hidden.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / name for name in names]


@pytest.mark.parametrize("name", ["missing", "notes.txt", "x" * 300])
def test_a_missing_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no folder of images at"):
        find_images(tmp_path / name)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no images found in .*; expected png, jpg, webp or bmp files"):
        find_images(tmp_path)


def test_each_file_gets_its_colour(model: OnnxClassifier, pictures: Path) -> None:
    for prediction in predicted(model, pictures):
        (best, probability), *others = prediction.top
        assert best == Path(prediction.file).parent.name
        assert probability > max(p for _, p in others)
        assert sum(p for _, p in prediction.top) == pytest.approx(1, abs=1e-6)


def test_the_order_of_the_files_is_kept(model: OnnxClassifier, pictures: Path) -> None:
    files = find_images(pictures)[::-1]
    assert [prediction.file for prediction in predict_files(model, files, batch_size=5)] == [str(f) for f in files]


def test_every_file_is_accounted_for_and_the_unreadable_ones_carry_the_reason(
    model: OnnxClassifier, two_broken: Path
) -> None:
    predictions = predicted(model, two_broken, batch_size=3)
    assert [prediction.file for prediction in predictions] == [str(file) for file in find_images(two_broken)]
    errors = {Path(p.file).name: p.error for p in predictions if not p.top}
    assert errors.keys() == {"000a.jpg", "half.png"}
    assert errors["000a.jpg"] == "not a png, jpg, webp or bmp image"
    assert "truncated" in errors["half.png"]
    assert all(Path(p.file).parent.name == p.top[0][0] for p in predictions if not p.error)


def test_a_file_that_vanishes_is_one_unreadable_file(model: OnnxClassifier, pictures: Path) -> None:
    files = find_images(pictures)
    files[3].unlink()
    predictions = list(predict_files(model, files))
    assert [bool(prediction.error) for prediction in predictions] == [file == files[3] for file in files]


def test_a_batch_of_unreadable_files_only_is_no_problem(model: OnnxClassifier, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    assert [prediction.top for prediction in predicted(model, tmp_path)] == [(), ()]


@pytest.mark.parametrize("batch_size", [1, 2, 33])
def test_the_batch_size_does_not_change_the_answer(batch_size: int, model: OnnxClassifier, two_broken: Path) -> None:
    for one, other in zip(predicted(model, two_broken, 5, batch_size), predicted(model, two_broken), strict=True):
        assert (one.file, one.error) == (other.file, other.error)
        assert [label for label, _ in one.top] == [label for label, _ in other.top]
        assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=1e-6)


def test_asked_twice_the_answer_is_the_same(model: OnnxClassifier, two_broken: Path) -> None:
    assert predicted(model, two_broken) == predicted(model, two_broken)


def test_no_files_give_no_predictions(model: OnnxClassifier) -> None:
    assert list(predict_files(model, [])) == []


@pytest.mark.parametrize(("top_k", "n_ranks"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_the_top_k_classes_are_listed_most_probable_first(
    top_k: int, n_ranks: int, model: OnnxClassifier, pictures: Path
) -> None:
    for prediction in predicted(model, pictures, top_k):
        probabilities = [probability for _, probability in prediction.top]
        assert len(probabilities) == n_ranks
        assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize(("rule", "seen"), [("crop", "green"), ("stretch", "red")])
def test_pictures_are_resized_by_the_rule_in_the_model_file(rule: str, seen: str, tmp_path: Path) -> None:
    wide = Image.new("RGB", (80, 16), (200, 40, 40))
    wide.paste((40, 200, 40), (32, 0, 48, 16))
    wide.save(tmp_path / "wide.png")
    model = OnnxClassifier.load(write_model(tmp_path / "m.onnx", METADATA | {"resize_rule": rule}))
    assert predicted(model, tmp_path)[0].top[0][0] == seen


@every_writer
def test_a_table_has_one_row_per_file_and_counts_the_unreadable(
    write: Write, model: OnnxClassifier, two_broken: Path, tmp_path: Path
) -> None:
    output = tmp_path / "table"
    assert write(iter(predicted(model, two_broken)), output, 3) == 2
    rows = read_csv(output) if write is write_csv else pq.read_table(output).to_pylist()
    assert list(rows[0]) == COLUMNS
    assert [row["file"] for row in rows] == [str(file) for file in find_images(two_broken)]


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_csv_and_parquet_agree(top_k: int, model: OnnxClassifier, two_broken: Path, tmp_path: Path) -> None:
    predictions = predicted(model, two_broken, top_k)
    write_csv(predictions, tmp_path / "a.csv", top_k)
    write_parquet(predictions, tmp_path / "a.parquet", top_k)
    from_csv, from_parquet = read_csv(tmp_path / "a.csv"), pq.read_table(tmp_path / "a.parquet").to_pylist()
    for text, typed in zip(from_csv, from_parquet, strict=True):
        assert text == {name: str(value) for name, value in typed.items()}


def test_an_unreadable_file_has_a_row_without_label(tmp_path: Path) -> None:
    write_csv([Prediction("a.png", (), "no picture")], tmp_path / "a.csv", 1)
    (row,) = read_csv(tmp_path / "a.csv")
    assert (row["file"], row["label"], row["error"]) == ("a.png", "", "no picture")
    assert math.isnan(float(row["probability"]))


AWKWARD = ['comma, quote " and\nline.png', "größe/図.png", os.fsdecode(b"\xff.png")]


@every_writer
@pytest.mark.parametrize("name", AWKWARD, ids=ascii)
def test_every_name_that_a_file_can_have_is_written(name: str, write: Write, tmp_path: Path) -> None:
    output = tmp_path / "table"
    write(iter([Prediction(name, (("red", 0.5),))]), output, 1)
    (row,) = read_csv(output) if write is write_csv else pq.read_table(output).to_pylist()
    assert row["file"] == name.encode("utf-8", "replace").decode()


def test_a_csv_file_is_utf8_in_every_locale(tmp_path: Path) -> None:
    code = f"from serving.batch import *; write_csv([Prediction({'größe/図.png'!a}, ())], Path('a.csv'), 1)"
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | locale, check=True, timeout=60)
    assert read_csv(tmp_path / "a.csv")[0]["file"] == "größe/図.png"


def test_a_table_larger_than_a_group_is_complete(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(10_001)]
    write_parquet((Prediction(name, ()) for name in names), tmp_path / "a.parquet", 1)
    assert pq.read_table(tmp_path / "a.parquet")["file"].to_pylist() == names


@every_writer
@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("earlier", [None, b"an earlier table"])
def test_an_interrupted_table_leaves_the_folder_as_it_was(
    write: Write, interruption: type[BaseException], earlier: bytes | None, tmp_path: Path
) -> None:
    def interrupted() -> Iterator[Prediction]:
        yield Prediction("a.png", ())
        raise interruption

    if earlier is not None:
        (tmp_path / "table").write_bytes(earlier)
    with pytest.raises(interruption):
        write(interrupted(), tmp_path / "table", 1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "cache"} == (
        {} if earlier is None else {"table": earlier}
    )


@every_writer
def test_a_table_may_be_read_by_whoever_may_read_a_new_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    write(iter([Prediction("a.png", ())]), tmp_path / "table", 1)
    assert oct((tmp_path / "table").stat().st_mode) == oct((tmp_path / "new").stat().st_mode)


def test_a_good_output_is_accepted_and_its_folder_made(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "folder" / "out.CSV", [".csv"])
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("out.txt", "it must end in .csv or .parquet"),
        ("out", "it must end in .csv or .parquet"),
        ("folder.csv", "is a folder; give a file name"),
        ("file/out.csv", "cannot be written"),
        ("x" * 300 + ".csv", "cannot be written"),
    ],
    ids=["suffix", "no_suffix", "folder", "parent_is_a_file", "name_too_long"],
)
def test_an_output_that_cannot_be_written_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as raised:
        check_output(tmp_path / name, [".csv", ".parquet"])
    assert reason in str(raised.value)


def serve(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    command = [sys.executable, "-W", "error", "-m", "serving", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_line_writes_the_table(model_file: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out.csv"
    done = serve(model_file, pictures, output, "--top_k", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"12 images, 0 unreadable: {output}\n"
    rows = read_csv(output)
    assert list(rows[0]) == COLUMNS[:6]
    assert all(Path(row["file"]).parent.name == row["label"] for row in rows)


def test_the_command_line_says_2_if_a_file_is_unreadable_and_the_table_is_complete(
    model_file: Path, two_broken: Path, tmp_path: Path
) -> None:
    done = serve(model_file, two_broken, tmp_path / "out.csv")
    assert done.returncode == 2
    assert "14 images, 2 unreadable" in done.stdout
    rows = read_csv(tmp_path / "out.csv")
    assert [row["file"] for row in rows] == [str(file) for file in find_images(two_broken)]
    assert sum(bool(row["error"]) for row in rows) == 2


@pytest.mark.parametrize(
    ("model_name", "folder", "output", "reason"),
    [
        ("missing.onnx", "pictures", "out.csv", "no model file at"),
        ("broken.onnx", "pictures", "out.csv", "is not a readable ONNX model"),
        ("model.onnx", "missing", "out.csv", "no folder of images at"),
        ("model.onnx", "empty", "out.csv", "no images found in"),
        ("model.onnx", "pictures", "out.txt", "it must end in .csv"),
        ("model.onnx", "pictures", "broken.onnx/out.csv", "cannot be written"),
    ],
)
@pytest.mark.usefixtures("model_file", "pictures")
def test_the_command_line_says_2_and_one_sentence_on_bad_input(
    model_name: str, folder: str, output: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.onnx").write_text("no model")
    done = serve(tmp_path / model_name, tmp_path / folder, tmp_path / output)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ")
    assert reason in sentence
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize("top_k", ["0", "101", "many"])
def test_the_command_line_refuses_a_top_k_without_sense(top_k: str, tmp_path: Path) -> None:
    done = serve("model.onnx", tmp_path, tmp_path / "out.csv", "--top_k", top_k)
    assert done.returncode == 2
    assert "argument --top_k: invalid" in done.stderr
    assert "Traceback" not in done.stderr
