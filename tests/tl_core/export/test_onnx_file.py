"""The exported file answers as torch does, says what it must of itself, and a check notices when it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tests.conftest import write_colour_images
from tl_core.data.dataset import load_dataset
from tl_core.errors import InputError
from tl_core.export import onnx_file
from tl_core.export.onnx_file import PARITY_BATCHES, PARITY_TOLERANCE, Parity, check_parity, export_onnx
from tl_core.fewshot.finetuner import Finetuner
from tl_core.heads.classifier import Classifier
from tl_core.heads.table import build_head
from tl_core.networks.backbones import BackboneSpec, build_backbone, n_features
from tl_core.recipes.finetune import FinetuneRecipe

SIZE = 16
NETWORK = BackboneSpec("resnet10_small", SIZE)
# Strange on purpose: a second normalisation, or none, gives other probabilities.
PIXELS = BackboneSpec("pixels", SIZE, mean=(0.2, 0.5, 0.8), std=(0.5, 1.0, 2.0))
METADATA = {"class_names": json.dumps(["blue", "green", "red"]), "image_size": str(SIZE), "resize_rule": "crop"}

Exported = tuple[Classifier, Path]


def mixed_images(n: int = 66) -> NDArray[np.uint8]:
    """Random mixtures of colours: probabilities far from 0 and 1, where a fault would show."""
    rng = np.random.default_rng(0)
    mixture = rng.uniform(60, 190, (n, 1, 1, 3)) + rng.normal(0, 20, (n, SIZE, SIZE, 3))
    return np.clip(mixture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=[NETWORK, PIXELS], ids=lambda spec: spec.architecture)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A classifier fitted to the three colours, and its file."""
    folder = tmp_path_factory.mktemp("exported")
    data = load_dataset(str(write_colour_images(folder / "colours", n_per_class=5)), SIZE, cache_dir=folder / "cache")
    finetuner = Finetuner(build_backbone(request.param, seed=0), request.param, data, torch.device("cpu"))
    recipe = FinetuneRecipe(freeze_depth=0.5, steps=3, max_lr=1e-3)
    classifier = finetuner.fit_classifier(np.arange(15), recipe, seed=0)
    with torch.no_grad():  # less certain: where every probability is 0 or 1, hardly any fault would show
        for parameter in classifier.head.parameters():
            parameter.mul_(0.05)
    # Given in training mode: the file must use the batch norm's own statistics all the same.
    export_onnx(classifier.train(), SIZE, METADATA, folder / "new" / "classifier.onnx")
    return classifier.eval(), folder / "new" / "classifier.onnx"


only_pixels = pytest.mark.parametrize("exported", [PIXELS], indirect=True, ids=["pixels"])


def answer(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"images": images})
    return np.asarray(probabilities)


@pytest.mark.parametrize("batch_size", [1, 2, 33])
def test_file_and_torch_agree_at_every_batch_size(exported: Exported, batch_size: int) -> None:
    parity = check_parity(*exported, mixed_images(), [batch_size])
    assert parity.holds
    assert parity.n_images == 66


def test_the_file_says_nothing_of_the_machine_that_it_was_made_on(exported: Exported) -> None:
    content = exported[1].read_bytes()
    for place in (str(Path(onnx_file.__file__).parents[2]), "site-packages", "stack_trace"):
        assert place.encode() not in content


@pytest.mark.parametrize("batch_size", [1, 2, 33])
@torch.no_grad()
def test_the_probabilities_are_the_softmax_of_the_logits(exported: Exported, batch_size: int) -> None:
    classifier, path = exported
    images = mixed_images(batch_size)
    logits = classifier(torch.from_numpy(images)).double().numpy()
    by_hand = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(answer(path, images), by_hand, atol=1e-5)


def test_the_test_images_are_not_answered_with_certainty(exported: Exported) -> None:
    confidence = answer(exported[1], mixed_images()).max(1)
    assert np.median(confidence) < 0.99


def test_parity_is_checked_at_one_two_and_thirty_three_without_being_told() -> None:
    assert PARITY_BATCHES == (1, 2, 33)


def test_rows_sum_to_one(exported: Exported) -> None:
    probabilities = answer(exported[1], mixed_images())
    assert probabilities.shape == (66, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_an_answer_does_not_depend_on_the_rest_of_the_batch(exported: Exported) -> None:
    images = mixed_images(5)
    alone = np.concatenate([answer(exported[1], image[None]) for image in images])
    np.testing.assert_allclose(answer(exported[1], images), alone, atol=1e-6)


def test_the_metadata_is_in_the_file(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported[1], providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map.items() >= METADATA.items()


def test_the_input_is_bytes_with_channels_last_and_any_batch_size(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported[1], providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    (returned,) = session.get_outputs()
    assert (given.name, given.type) == ("images", "tensor(uint8)")
    assert given.shape[1:] == [SIZE, SIZE, 3]
    assert isinstance(given.shape[0], str)
    assert (returned.name, returned.type, returned.shape[1:]) == ("probabilities", "tensor(float)", [3])


def test_the_file_needs_no_other_file(exported: Exported) -> None:
    assert [path.name for path in exported[1].parent.iterdir()] == ["classifier.onnx"]


@only_pixels
def test_normalisation_is_applied_exactly_once(exported: Exported) -> None:
    classifier, path = exported
    images = mixed_images()
    scaled = (images / 255 - np.array(PIXELS.mean)) / np.array(PIXELS.std)
    grid = scaled.reshape(len(images), 8, 2, 8, 2, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(len(images), -1)
    head = {name: value.double().numpy() for name, value in classifier.head.state_dict().items()}
    logits = (grid - head["centre"]) / head["scale"] @ head["weight"].T + head["bias"]
    by_hand = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(answer(path, images), by_hand, atol=1e-5)


def tamper(path: Path, target: Path, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Path:
    """Change the weights of a file's head, the only matrix in it."""
    model = onnx.load(path)
    (head,) = (i for i in model.graph.initializer if i.data_type == TensorProto.FLOAT and len(i.dims) == 2)
    head.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(head).copy()), head.name))
    onnx.save_model(model, target)
    return target


def unchanged(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return weights


def scaled(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return weights * np.float32(1.05)


def one_moved(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    weights.flat[0] += 1
    return weights


def not_a_number(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full_like(weights, np.nan)


@only_pixels
def test_a_file_that_was_read_and_written_still_has_parity(exported: Exported, tmp_path: Path) -> None:
    assert check_parity(exported[0], tamper(exported[1], tmp_path / "same.onnx", unchanged), mixed_images()).holds


@only_pixels
@pytest.mark.parametrize("change", [scaled, one_moved, not_a_number])
def test_a_file_with_other_weights_has_no_parity(
    exported: Exported, tmp_path: Path, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    assert not check_parity(exported[0], tamper(exported[1], tmp_path / "x.onnx", change), mixed_images()).holds


@only_pixels
@pytest.mark.parametrize("worst", [0, 40, 65])
def test_the_worst_image_is_named(exported: Exported, worst: int) -> None:
    images = mixed_images()
    served = images.copy()
    served[worst] = 255 - served[worst]
    parity = check_parity(*exported, images, served=served)
    assert not parity.holds
    assert parity.worst == worst


@only_pixels
def test_an_image_of_another_class_is_worse_than_one_further_apart(exported: Exported, tmp_path: Path) -> None:
    classifier, path = exported
    images = mixed_images()
    answers = answer(path, images)
    sure, torn = int(answers.max(1).argmax()), int(answers.max(1).argmin())
    served = images.copy()
    served[sure] = images[next(i for i in range(66) if answers[i].argmax() == answers[sure].argmax() and i != sure)]
    served[torn] = images[next(i for i in range(66) if answers[i].argmax() != answers[torn].argmax())]
    assert check_parity(classifier, path, images, served=served).worst == torn


@only_pixels
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_the_temperature_is_in_the_file(exported: Exported, temperature: float, tmp_path: Path) -> None:
    cold, path = exported
    other = Classifier(PIXELS, cold.backbone, cold.head, temperature=temperature).eval()
    export_onnx(other, SIZE, METADATA, tmp_path / "other.onnx")
    logits = np.log(answer(path, mixed_images())) / temperature
    by_hand = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(answer(tmp_path / "other.onnx", mixed_images()), by_hand, atol=1e-5)
    assert check_parity(other, tmp_path / "other.onnx", mixed_images()).holds


@only_pixels
def test_the_opset_is_in_the_metadata_and_is_that_of_the_graph(exported: Exported) -> None:
    model = onnx.load(exported[1])
    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    assert {entry.key: entry.value for entry in model.metadata_props}["opset"] == str(opset)


def write_broken_on_black(path: Path) -> None:
    """A file that is sure of class 0, and gives no number (0 / 0) for a black image."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("ReduceMax", ["flat", "axes"], ["brightest"], keepdims=1),
        helper.make_node("Div", ["brightest", "brightest"], ["one"]),
        helper.make_node("Mul", ["one", "sure"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "broken",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axes"),
            numpy_helper.from_array(np.array([[1, 0, 0]], dtype=np.float32), "sure"),
        ],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


class SureOfClass0(nn.Module):
    """What the broken file should have been."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.tensor([[200.0, 0.0, 0.0]]).expand(len(features), -1)


@pytest.mark.parametrize("black", [0, 1, 2])
def test_an_answer_that_is_no_number_is_not_parity_wherever_it_stands(tmp_path: Path, black: int) -> None:
    classifier = Classifier(PIXELS, build_backbone(PIXELS, seed=0), SureOfClass0())
    write_broken_on_black(tmp_path / "broken.onnx")
    images = mixed_images(3)
    assert check_parity(classifier, tmp_path / "broken.onnx", images, [1]).holds
    images[black] = 0
    assert not check_parity(classifier, tmp_path / "broken.onnx", images, [1]).holds


@pytest.fixture(scope="module")
def with_similarity(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A classifier with class means and two test views, and its file."""
    backbone = build_backbone(NETWORK, seed=0)
    width = n_features(backbone, NETWORK)
    means = torch.rand(3, width, generator=torch.Generator().manual_seed(0))
    means = means / means.norm(dim=1, keepdim=True)
    head = build_head("linear", width, 3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / width)
    classifier = Classifier(NETWORK, backbone, head, "flip", class_means=means).eval()
    path = tmp_path_factory.mktemp("similarity") / "classifier.onnx"
    export_onnx(classifier, SIZE, METADATA, path)
    return classifier, path


@pytest.mark.parametrize("batch_size", PARITY_BATCHES)
def test_the_second_output_is_the_similarity_of_torch(with_similarity: Exported, batch_size: int) -> None:
    classifier, path = with_similarity
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities", "similarity"]
    images = mixed_images(batch_size)
    probabilities, similarity = session.run(None, {"images": images})
    assert (similarity.shape, similarity.dtype) == ((batch_size,), np.float32)
    assert np.ptp(similarity) > 0 or batch_size == 1
    with torch.no_grad():
        logits, expected = classifier.forward_with_similarity(torch.from_numpy(images))
    np.testing.assert_allclose(similarity, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-5)


def test_parity_compares_the_similarities_too(with_similarity: Exported) -> None:
    classifier, path = with_similarity
    parity = check_parity(classifier, path, mixed_images())
    assert parity.holds
    assert 0 < parity.similarity_difference < PARITY_TOLERANCE
    assert classifier.class_means is not None
    other = Classifier(
        NETWORK, classifier.backbone, classifier.head, "flip", class_means=classifier.class_means.flip(1)
    )
    parity = check_parity(other.eval(), path, mixed_images())
    assert parity.max_difference < PARITY_TOLERANCE < parity.similarity_difference
    assert not parity.holds


def test_a_file_without_the_similarity_of_its_classifier_has_no_parity(with_similarity: Exported) -> None:
    classifier, path = with_similarity
    without = Classifier(NETWORK, classifier.backbone, classifier.head, "flip").eval()
    assert check_parity(without, path, mixed_images()).similarity_difference == np.inf
    assert not check_parity(without, path, mixed_images()).holds


def test_without_class_means_no_similarity_is_compared(exported: Exported) -> None:
    assert check_parity(*exported, mixed_images()).similarity_difference == 0


def test_without_images_parity_is_not_taken_for_granted(exported: Exported) -> None:
    with pytest.raises(InputError, match="parity cannot be checked without images"):
        check_parity(*exported, mixed_images(0))


@pytest.mark.parametrize(
    ("parity", "holds"),
    [
        (Parity(PARITY_TOLERANCE, 1.0, 10), True),
        (Parity(PARITY_TOLERANCE * 1.01, 1.0, 10), False),
        (Parity(0.0, 0.99, 10), False),
        (Parity(float("nan"), 1.0, 10), False),
        (Parity(0.0, 1.0, 10, similarity_difference=PARITY_TOLERANCE), True),
        (Parity(0.0, 1.0, 10, similarity_difference=PARITY_TOLERANCE * 1.01), False),
        (Parity(0.0, 1.0, 10, similarity_difference=float("nan")), False),
    ],
)
def test_parity_needs_both_near_probabilities_and_equal_classes(parity: Parity, holds: bool) -> None:
    assert parity.holds is holds
