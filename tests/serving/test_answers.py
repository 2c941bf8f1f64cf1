"""Predictions beside the classes that the images' folders name."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.answers import Accuracy, score_known
from serving.batch import Options
from serving.job import write_predictions
from serving.model import OnnxClassifier
from serving.sources import open_source
from tl_core.scoring.images import wilson_of_share


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 1), (0, 10), (7, 12), (12, 12), (880, 1000)])
def test_the_interval_is_wilsons(n_right: int, n: int) -> None:
    found, expected = Accuracy.of(n_right, n), wilson_of_share(n_right / n, n)
    assert (found.value, found.low, found.high) == pytest.approx((n_right / n, expected.low, expected.high), abs=1e-7)


def score(model: OnnxClassifier, images: Path, table: Path, least: float = 0.0) -> Accuracy | None:
    with open_source(str(images), "") as source:
        write_predictions(model, source, table, Options(min_probability=least))
        return score_known(source, table, model.class_names)


def test_images_in_folders_of_classes_are_scored_and_others_left_out(
    model: OnnxClassifier, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "blue" / "000.png").rename(pictures / "red" / "blue.png")  # a mistake, whatever the model says
    (pictures / "new").mkdir()
    (pictures / "green" / "000.png").rename(pictures / "new" / "green.png")
    (pictures / "red" / "broken.png").write_text("no image")
    assert score(model, pictures, tmp_path / "out.csv") == Accuracy.of(10, 11)


def test_a_prediction_without_a_label_is_scored_by_its_best_class(
    model: OnnxClassifier, pictures: Path, tmp_path: Path
) -> None:
    assert score(model, pictures, tmp_path / "out.csv", least=1.0) == Accuracy.of(12, 12)


def test_without_a_folder_of_a_class_there_is_nothing_to_score(
    model: OnnxClassifier, pictures: Path, tmp_path: Path
) -> None:
    for name in ("red", "green", "blue"):
        (pictures / name).rename(pictures / f"{name}s")
    assert score(model, pictures, tmp_path / "out.csv") is None
