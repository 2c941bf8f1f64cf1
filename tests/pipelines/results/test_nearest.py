"""Nearest labelled images beside mistakes: of another image, of the class that is asked for."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from pipelines.reports.page import Gallery
from pipelines.reports.predictions import answers_sections
from pipelines.results.nearest import Neighbours, features_in_file
from pipelines.results.predictions import log_answers, read_answers
from pipelines.results.thumbnails import thumbnail
from tests.serving.conftest import METADATA, write_model
from tl_core.data.dataset import ImageDataset
from tl_core.export.onnx_file import export_onnx
from tl_core.heads.classifier import Classifier
from tl_core.heads.table import build_head
from tl_core.networks.backbones import BackboneSpec, build_backbone, n_features
from tl_core.training.staged import ImagePredictions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

NETWORK = BackboneSpec("resnet10_small", 16)
ANGLES = np.deg2rad([0, 10, 90, 40, 180, 200, 270, 5])
LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1])


@pytest.fixture
def dataset() -> ImageDataset:
    """Eight images of two classes; the last is a copy of the first under the other label."""
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    images[7] = images[0]
    return ImageDataset(
        name="made",
        class_names=("a", "b"),
        images=images,
        labels=LABELS,
        file_names=tuple(f"{row}.png" for row in range(8)),
        content_hashes=(*map(str, range(7)), "0"),
        fingerprint="f",
        unreadable=(),
        decoded=0,
    )


@pytest.fixture
def neighbours(dataset: ImageDataset) -> Neighbours:
    directions = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    return Neighbours(dataset, np.arange(8), (directions - directions.mean(0)).astype(np.float32))


def test_the_nearest_of_a_class_is_neither_the_image_nor_its_copy(neighbours: Neighbours) -> None:
    assert neighbours.find(0, 0) == 1
    assert neighbours.find(0, 1) == 3  # and not 7, which is nearer


def test_where_a_class_has_no_other_image_there_is_none(dataset: ImageDataset) -> None:
    some = Neighbours(dataset, np.array([0, 3, 4]), np.eye(3, dtype=np.float32))
    assert some.find(0, 0) is None
    assert some.find(3, 1) == 4


def test_mistakes_are_kept_and_shown_beside_their_nearest_images(
    dataset: ImageDataset, neighbours: Neighbours, store: str
) -> None:
    predictions = LABELS.copy()
    predictions[0] = 1
    answers = ImagePredictions(np.arange(8), LABELS, predictions, np.full(8, 0.9, dtype=np.float32))
    with mlflow.start_run() as run:
        log_answers(dataset, answers, "all", lambda _: neighbours)
    wrong = read_answers(run.info.run_id).examples.iloc[0]
    assert (wrong["nearest_label"], wrong["nearest_prediction"]) == tuple(
        thumbnail(dataset.images[row]) for row in (1, 3)
    )
    assert read_answers(run.info.run_id).examples["nearest_label"][1:].isna().all()
    examples = answers_sections(mlflow.MlflowClient().get_run(run.info.run_id))[1]
    mistake = examples.parts[0]
    assert isinstance(mistake, Gallery)
    assert mistake.caption == "is a \N{RIGHTWARDS ARROW} taken for b, 90 %"
    captions = [list(picture.caption) for picture in mistake.pictures]
    assert captions == [["this image", "0.png"], ["nearest image of", "b"], ["nearest image of", "a"]]


def test_without_nearest_images_the_mistakes_are_shown_alone(dataset: ImageDataset, store: str) -> None:
    answers = ImagePredictions(np.arange(8), LABELS, 1 - LABELS, np.full(8, 0.9, dtype=np.float32))
    with mlflow.start_run() as run:
        log_answers(dataset, answers, "all")
    assert "nearest_label" not in pd.DataFrame(read_answers(run.info.run_id).examples)
    (mistakes,) = answers_sections(mlflow.MlflowClient().get_run(run.info.run_id))[1].parts
    assert isinstance(mistakes, Gallery)
    assert len(mistakes.pictures) == 8


def test_a_file_that_compares_nothing_shows_no_features(tmp_path: Path) -> None:
    images = np.zeros((3, 16, 16, 3), dtype=np.uint8)
    assert features_in_file(write_model(tmp_path / "plain.onnx", METADATA), images) is None
    assert features_in_file(write_model(tmp_path / "wary.onnx", METADATA, second="similarity"), images) is None


def test_the_features_of_a_file_are_those_that_torch_compares(tmp_path: Path) -> None:
    backbone = build_backbone(NETWORK, seed=0)
    width = n_features(backbone, NETWORK)
    means = functional.normalize(torch.rand(3, width, generator=torch.Generator().manual_seed(0)), dim=1)
    classifier = Classifier(NETWORK, backbone, build_head("linear", width, 3), class_means=means).eval()
    export_onnx(classifier, NETWORK.image_size, METADATA, tmp_path / "classifier.onnx")
    images = np.random.default_rng(0).integers(0, 256, (5, NETWORK.image_size, NETWORK.image_size, 3), dtype=np.uint8)
    found = features_in_file(tmp_path / "classifier.onnx", images, batch_size=2)
    assert found is not None
    with torch.no_grad():
        expected = functional.normalize(classifier.mean_features(torch.from_numpy(images)), dim=1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
