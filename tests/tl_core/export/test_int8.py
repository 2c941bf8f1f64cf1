"""The int8 variant is smaller, answers nearly as the original does, and is still a file that serving takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from serving.model import OnnxClassifier
from tests.conftest import write_colour_images
from tl_core.data.dataset import load_dataset
from tl_core.errors import InputError
from tl_core.export.int8 import equal_answers, quantise_onnx
from tl_core.export.onnx_file import export_onnx
from tl_core.fewshot.finetuner import Finetuner
from tl_core.heads.features import image_features
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.unlike import class_means

SPEC = BackboneSpec("resnet10_small", 32)
NAMES = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, NDArray[np.uint8]]:
    """A classifier of three colours, its int8 variant, and pictures that neither was fitted or calibrated on."""
    folder = tmp_path_factory.mktemp("quantised")
    data = load_dataset(str(write_colour_images(folder / "colours", n_per_class=20)), 32, cache_dir=folder / "cache")
    support = np.arange(0, 60, 2)
    finetuner = Finetuner(build_backbone(SPEC, seed=0), SPEC, data, torch.device("cpu"))
    classifier = finetuner.fit_classifier(support, FinetuneRecipe(freeze_depth=1.0), seed=0)
    features = image_features(classifier, data.images[support], torch.device("cpu"))
    classifier.class_means = torch.from_numpy(class_means(features, data.labels[support], 3).astype(np.float32))
    metadata = {"class_names": json.dumps(NAMES), "image_size": "32", "resize_rule": "crop", "fit_run": "f"}
    export_onnx(classifier, 32, metadata, folder / "float.onnx")
    quantise_onnx(folder / "float.onnx", data.images[support], folder / "int8.onnx")
    return folder / "float.onnx", folder / "int8.onnx", data.images[1::2]


def test_the_answers_are_nearly_the_same(files: tuple[Path, Path, NDArray[np.uint8]]) -> None:
    original, int8, images = files
    assert equal_answers(original, int8, images) >= 0.95
    expected, actual = (OnnxClassifier.load(path).predict(images) for path in (original, int8))
    assert 0 < np.abs(expected - actual).max() < 0.2  # not the same numbers, or nothing was quantised


def test_the_similarity_is_nearly_the_same(files: tuple[Path, Path, NDArray[np.uint8]]) -> None:
    expected, actual = (OnnxClassifier.load(path).predict_with_similarity(files[2])[1] for path in files[:2])
    assert expected is not None
    assert actual is not None
    assert 0 < np.abs(expected - actual).max() < 0.05


def test_the_similarity_is_computed_from_the_features_in_floating_point(
    files: tuple[Path, Path, NDArray[np.uint8]],
) -> None:
    graph = onnx.load(files[1]).graph
    made_by = {output: node for node in graph.node for output in node.output}
    (product,) = (made_by[name] for name in made_by[graph.output[1].name].input if name in made_by)
    assert product.op_type in ("MatMul", "Gemm")
    assert made_by[product.input[0]].op_type == "Div"
    assert product.input[1] not in made_by  # the class means are a constant as they were


def test_the_file_is_about_a_quarter(files: tuple[Path, Path, NDArray[np.uint8]]) -> None:
    assert files[1].stat().st_size < 0.4 * files[0].stat().st_size


def test_all_convolutions_but_the_first_have_8_bit_weights(files: tuple[Path, Path, NDArray[np.uint8]]) -> None:
    graph = onnx.load(files[1]).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    first, *others = [made_by.get(node.input[1]) for node in convolutions]  # None: a constant, as it was
    assert (first, set(others)) == (None, {"DequantizeLinear"})


def test_the_metadata_stay(files: tuple[Path, Path, NDArray[np.uint8]]) -> None:
    original, int8 = (OnnxClassifier.load(path).session.get_modelmeta().custom_metadata_map for path in files[:2])
    assert int8 == original | {"precision": "int8"}
    assert original["fit_run"] == "f"


@pytest.mark.parametrize("n", [1, 2, 33])
def test_any_number_of_images_is_answered(files: tuple[Path, Path, NDArray[np.uint8]], n: int) -> None:
    images = np.resize(files[2], (n, 32, 32, 3))
    assert OnnxClassifier.load(files[1]).predict(images).shape == (n, 3)


def test_answers_that_differ_are_counted(files: tuple[Path, Path, NDArray[np.uint8]]) -> None:
    assert equal_answers(files[0], files[0], files[2]) == 1.0


def test_without_images_nothing_is_calibrated(files: tuple[Path, Path, NDArray[np.uint8]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be calibrated without images"):
        quantise_onnx(files[0], files[2][:0], tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
