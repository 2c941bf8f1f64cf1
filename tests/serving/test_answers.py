"""Predictions beside the classes that the images' folders name."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from serving.answers import Accuracy, KnownImages, score_known
from serving.batch import Options
from serving.job import write_predictions
from serving.model import OnnxClassifier
from serving.sources import open_source
from tests.serving.conftest import METADATA, write_model
from tl_core.scoring.images import wilson_of_share


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 1), (0, 10), (7, 12), (12, 12), (880, 1000)])
def test_the_interval_is_wilsons(n_right: int, n: int) -> None:
    found, expected = Accuracy.of(n_right, n), wilson_of_share(n_right / n, n)
    assert (found.value, found.low, found.high) == pytest.approx((n_right / n, expected.low, expected.high), abs=1e-7)


def score(model: OnnxClassifier, images: Path, table: Path, least: float = 0.0) -> Accuracy | None:
    return known_images(model, images, table, least).accuracy


def known_images(model: OnnxClassifier, images: Path, table: Path, least: float = 0.0) -> KnownImages:
    with open_source(str(images), "") as source:
        write_predictions(model, source, table, Options(min_probability=least))
        return score_known(source, table, model)


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


def test_images_that_the_classifier_was_made_from_are_not_counted(pictures: Path, tmp_path: Path) -> None:
    (pictures / "blue" / "000.png").rename(pictures / "red" / "blue.png")  # a mistake, whatever the model says
    learned = [*(pictures / "green").iterdir(), *(pictures / "blue").iterdir()]
    hashes = b"".join(hashlib.sha256(file.read_bytes()).digest()[:8] for file in learned)
    metadata = METADATA | {"learned_from": base64.b64encode(hashes).decode()}
    model = OnnxClassifier.load(write_model(tmp_path / "learned.onnx", metadata), n_threads=1)
    found = known_images(model, pictures, tmp_path / "out.csv")
    assert found == KnownImages(Accuracy.of(4, 5), n_learned=7)
    assert "on the 5 new images" in found.sentences()[0]
    assert found.sentences()[1].startswith("7 images that the classifier was made from say nothing")
    nothing_new = known_images(model, pictures / "green", tmp_path / "green.csv")
    assert nothing_new.accuracy is None
    assert len(nothing_new.sentences()) == 1


@pytest.mark.parametrize("text", ["", "no base64!", "AAAA"])
def test_a_file_that_does_not_say_what_it_learned_from_counts_every_image(
    text: str, pictures: Path, tmp_path: Path
) -> None:
    model = OnnxClassifier.load(write_model(tmp_path / "m.onnx", METADATA | {"learned_from": text}), n_threads=1)
    assert score(model, pictures, tmp_path / "out.csv") == Accuracy.of(12, 12)
