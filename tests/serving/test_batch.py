"""Batches of files through a model: in order, every file accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from serving.batch import Options, predict_batches
from serving.model import OnnxClassifier
from serving.sources import ImageFile, open_source
from serving.tables import Prediction
from tests.serving.conftest import METADATA, below, write_model


def predicted(model: OnnxClassifier, folder: Path, options: Options | None = None) -> list[Prediction]:
    options = options or Options()
    with open_source(str(folder)) as source:
        files = list(source.files())
    size = options.batch_size
    batches = (files[start : start + size] for start in range(0, len(files), size))
    return [prediction for batch in predict_batches(model, batches, options) for prediction in batch]


def test_each_file_gets_its_colour(model: OnnxClassifier, pictures: Path) -> None:
    for prediction in predicted(model, pictures):
        (best, probability), *others = prediction.top
        assert best == prediction.label == Path(prediction.file).parent.name
        assert probability > max(p for _, p in others)
        assert sum(p for _, p in prediction.top) == pytest.approx(1, abs=1e-6)


def test_every_file_is_accounted_for_and_the_unreadable_ones_carry_the_reason(
    model: OnnxClassifier, two_broken: Path
) -> None:
    predictions = predicted(model, two_broken, Options(batch_size=3))
    assert [prediction.file for prediction in predictions] == below(two_broken)
    errors = {Path(p.file).name: p.error for p in predictions if not p.top}
    assert errors.keys() == {"000a.jpg", "half.png"}
    assert errors["000a.jpg"] == "not a png, jpg, webp, bmp, tif, gif or avif image"
    assert "truncated" in errors["half.png"]
    assert all(Path(p.file).parent.name == p.label for p in predictions if not p.error)


def test_a_file_that_vanishes_is_one_unreadable_file(model: OnnxClassifier, pictures: Path) -> None:
    with open_source(str(pictures)) as source:
        files = list(source.files())
    Path(files[3].name).unlink()
    (predictions,) = predict_batches(model, [files], Options())
    assert [prediction.error for prediction in predictions if prediction.error] == ["No such file or directory"]
    assert predictions[3].error


def test_a_batch_of_unreadable_files_only_is_no_problem(model: OnnxClassifier, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    assert [prediction.top for prediction in predicted(model, tmp_path)] == [(), ()]


@pytest.mark.parametrize("batch_size", [1, 2, 33])
@pytest.mark.parametrize("workers", [1, 5])
def test_batch_size_and_workers_do_not_change_the_answer(
    batch_size: int, workers: int, model: OnnxClassifier, two_broken: Path
) -> None:
    others = predicted(model, two_broken, Options(batch_size=batch_size, workers=workers))
    for one, other in zip(predicted(model, two_broken), others, strict=True):
        assert (one.file, one.label, one.error) == (other.file, other.label, other.error)
        assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=1e-6)


def test_asked_twice_the_answer_is_the_same(model: OnnxClassifier, two_broken: Path) -> None:
    assert predicted(model, two_broken) == predicted(model, two_broken)


def test_no_batches_give_no_predictions(model: OnnxClassifier) -> None:
    assert list(predict_batches(model, [], Options())) == []


@pytest.mark.parametrize(("top_k", "n_ranks"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_the_top_k_classes_are_listed_most_probable_first(
    top_k: int, n_ranks: int, model: OnnxClassifier, pictures: Path
) -> None:
    for prediction in predicted(model, pictures, Options(top_k=top_k)):
        probabilities = [probability for _, probability in prediction.top]
        assert len(probabilities) == n_ranks
        assert probabilities == sorted(probabilities, reverse=True)


def test_below_the_least_probability_no_label_is_given(model: OnnxClassifier, pictures: Path) -> None:
    best = sorted(prediction.top[0][1] for prediction in predicted(model, pictures))
    kept = predicted(model, pictures, Options(min_probability=best[5]))
    assert sum(not prediction.label for prediction in kept) == 5
    assert all((prediction.label != "") is (prediction.top[0][1] >= best[5]) for prediction in kept)


def test_pictures_below_the_threshold_are_marked_and_keep_their_label(wary: OnnxClassifier, two_dark: Path) -> None:
    predictions = {Path(p.file).name: p for p in predicted(wary, two_dark)}
    assert [name for name, p in predictions.items() if p.unlike] == ["dark.png", "darker.png"]
    assert predictions["dark.png"].label == "blue"
    assert predictions.pop("000a.jpg").unlike is None
    assert {p.unlike for p in predictions.values()} == {True, False}


def test_without_a_threshold_nothing_is_marked(model: OnnxClassifier, two_dark: Path) -> None:
    assert {p.unlike for p in predicted(model, two_dark)} == {None}


@pytest.mark.parametrize(("rule", "seen"), [("crop", "green"), ("stretch", "red")])
def test_pictures_are_resized_by_the_rule_in_the_model_file(rule: str, seen: str, tmp_path: Path) -> None:
    wide = Image.new("RGB", (80, 16), (200, 40, 40))
    wide.paste((40, 200, 40), (32, 0, 48, 16))
    wide.save(tmp_path / "wide.png")
    model = OnnxClassifier.load(write_model(tmp_path / "m.onnx", METADATA | {"resize_rule": rule}))
    assert predicted(model, tmp_path)[0].label == seen


def test_few_batches_are_in_memory_at_a_time(model: OnnxClassifier, pictures: Path) -> None:
    with open_source(str(pictures)) as source:
        file = next(source.files())
    asked = 0

    def batches() -> Iterator[list[ImageFile]]:
        nonlocal asked
        for _ in range(100):
            asked += 1
            yield [file]

    for given, _ in enumerate(predict_batches(model, batches(), Options(workers=2)), start=1):
        assert asked <= given + 2 * 2
