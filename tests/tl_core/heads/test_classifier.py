"""A classifier: its head starts from prototypes, and its two files hold all of it and nothing that could run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tl_core.errors import InputError
from tl_core.heads.classifier import Classifier, ClassifierDescription
from tl_core.heads.features import image_features
from tl_core.heads.storage import load_backbone, load_classifier, save_backbone, save_classifier
from tl_core.heads.table import build_head
from tl_core.networks.backbones import BackboneSpec, build_backbone, n_features
from tl_core.networks.normalise import Normalise
from tl_core.recipes.heads import HEADS

SPEC = BackboneSpec("resnet10_small", 16, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
PIXELS = BackboneSpec("pixels", 16, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
NAMES = ("blue", "green", "red")


def random_images(n: int = 6, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def build_classifier(spec: BackboneSpec = SPEC, head: str = "linear", seed: int = 0) -> Classifier:
    """Random weights everywhere, so that a forgotten one is noticed."""
    backbone = build_backbone(spec, seed)
    classifier = Classifier(spec, backbone, build_head(head, n_features(backbone, spec), len(NAMES)))
    generator = torch.Generator().manual_seed(seed)
    for name, value in classifier.state_dict().items():
        if value.is_floating_point() and "running_var" not in name and not name.endswith("scale"):
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return classifier.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_classifier(build_classifier(), ClassifierDescription(SPEC, NAMES, "linear"), tmp_path / "classifier")
    return tmp_path / "classifier"


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("spec", [SPEC, PIXELS], ids=lambda spec: spec.architecture)
@torch.no_grad()
def test_a_classifier_that_was_saved_and_loaded_gives_the_same_logits_to_the_last_bit(
    tmp_path: Path, spec: BackboneSpec, head: str
) -> None:
    classifier, description = build_classifier(spec, head), ClassifierDescription(spec, NAMES, head)
    save_classifier(classifier, description, tmp_path)
    loaded, read = load_classifier(tmp_path)
    assert read == description
    assert torch.equal(loaded(random_images()), classifier(random_images()))


@torch.no_grad()
def test_a_backbone_that_was_saved_and_loaded_gives_the_same_features_to_the_last_bit(tmp_path: Path) -> None:
    backbone = build_classifier().backbone
    save_backbone(backbone, SPEC, tmp_path)
    loaded, spec = load_backbone(tmp_path)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert spec == SPEC
    assert torch.equal(loaded.eval()(images), backbone(images))


@torch.no_grad()
def test_the_temperature_divides_the_logits_and_is_saved(tmp_path: Path) -> None:
    plain = build_classifier()
    warm = Classifier(SPEC, plain.backbone, plain.head, temperature=2.0).eval()
    save_classifier(warm, ClassifierDescription(SPEC, NAMES, "linear", temperature=2.0), tmp_path)
    loaded, description = load_classifier(tmp_path)
    assert description.temperature == 2.0
    assert torch.equal(loaded(random_images()), plain(random_images()) / 2)


@torch.no_grad()
def test_a_classifier_saved_before_there_were_temperatures_has_one_of_1(saved: Path) -> None:
    description = json.loads((saved / "description.json").read_text())
    del description["temperature"]
    (saved / "description.json").write_text(json.dumps(description))
    assert torch.equal(load_classifier(saved)[0](random_images()), build_classifier()(random_images()))


def with_means(test_views: str = "none") -> Classifier:
    """The classifier with a random mean of length 1 for each class."""
    plain = build_classifier()
    means = torch.randn(3, n_features(plain.backbone, SPEC), generator=torch.Generator().manual_seed(1))
    means = means / means.norm(dim=1, keepdim=True)
    return Classifier(SPEC, plain.backbone, plain.head, test_views, class_means=means).eval()


@pytest.mark.parametrize("test_views", ["none", "flip"])
@torch.no_grad()
def test_the_similarity_is_the_cosine_of_the_mean_feature_to_the_nearest_class_mean(test_views: str) -> None:
    classifier = with_means(test_views)
    images, means = random_images(), classifier.class_means
    assert means is not None
    pixels = Normalise(SPEC)(images.permute(0, 3, 1, 2) / 255)
    views = [pixels, pixels.flip(3)] if test_views == "flip" else [pixels]
    features = sum(classifier.backbone(view) for view in views) / len(views)
    logits, similarity = classifier.forward_with_similarity(images)
    expected = torch.stack([torch.cosine_similarity(features, mean[None]) for mean in means]).max(0).values
    torch.testing.assert_close(similarity, expected)
    torch.testing.assert_close(classifier.mean_features(images), features, rtol=1e-3, atol=1e-3)
    assert torch.equal(logits, classifier(images))


@torch.no_grad()
def test_class_means_and_their_threshold_are_saved(tmp_path: Path) -> None:
    classifier = with_means()
    description = ClassifierDescription(SPEC, NAMES, "linear", has_class_means=True, unlike_below=0.25)
    save_classifier(classifier, description, tmp_path)
    loaded, read = load_classifier(tmp_path)
    assert read == description
    for ours, theirs in zip(
        loaded.forward_with_similarity(random_images()),
        classifier.forward_with_similarity(random_images()),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_a_classifier_saved_before_there_were_class_means_has_none(saved: Path) -> None:
    description = json.loads((saved / "description.json").read_text())
    del description["has_class_means"], description["unlike_below"]
    (saved / "description.json").write_text(json.dumps(description))
    classifier, read = load_classifier(saved)
    assert (classifier.class_means, read.has_class_means, read.unlike_below) == (None, False, None)


def test_class_means_that_are_promised_and_missing_are_refused(saved: Path) -> None:
    description = json.loads((saved / "description.json").read_text())
    (saved / "description.json").write_text(json.dumps(description | {"has_class_means": True}))
    with pytest.raises(InputError, match="the weights are of another architecture"):
        load_classifier(saved)


def test_a_threshold_that_is_no_number_is_refused(saved: Path) -> None:
    description = json.loads((saved / "description.json").read_text())
    (saved / "description.json").write_text(json.dumps(description | {"unlike_below": "low"}))
    with pytest.raises(InputError, match="does not describe them") as error:
        load_classifier(saved)
    one_sentence(error)


@pytest.mark.parametrize("n", [1, 129])
@torch.no_grad()
def test_features_of_many_images_are_those_of_each(n: int) -> None:
    classifier = with_means("flip")
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    features = image_features(classifier, images, torch.device("cpu"))
    assert features.shape == (n, n_features(classifier.backbone, SPEC))
    expected = classifier.mean_features(torch.from_numpy(images[-1:])).numpy()
    np.testing.assert_allclose(features[-1:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_without_sense_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="expected temperature from"):
        Classifier(SPEC, build_classifier().backbone, build_classifier().head, temperature=temperature)


def test_a_loaded_classifier_is_in_evaluation_mode(saved: Path) -> None:
    assert not any(module.training for module in load_classifier(saved)[0].modules())


@torch.no_grad()
def test_predicting_twice_gives_the_same_answer_and_changes_nothing(saved: Path) -> None:
    classifier, _ = load_classifier(saved)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    assert torch.equal(classifier(random_images()), classifier(random_images()))
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_on_disk_are_exactly_the_weights_and_the_description(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["description.json", "weights.safetensors"]


def test_there_is_one_output_for_each_class(saved: Path) -> None:
    classifier, description = load_classifier(saved)
    assert classifier(random_images()).shape == (6, len(description.class_names))


def test_normalising_is_subtracting_the_mean_and_dividing_by_the_deviation() -> None:
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    by_hand = (images.numpy() - np.array(SPEC.mean).reshape(1, 3, 1, 1)) / np.array(SPEC.std).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(Normalise(SPEC)(images).numpy(), by_hand, atol=1e-5)


@torch.no_grad()
def test_the_logits_are_those_of_images_scaled_and_normalised_once() -> None:
    classifier, images = build_classifier(PIXELS), random_images()
    scaled = (images.numpy() / 255 - np.array(PIXELS.mean)) / np.array(PIXELS.std)
    grid = scaled.reshape(6, 8, 2, 8, 2, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(6, -1)
    head = {name: value.double().numpy() for name, value in classifier.head.state_dict().items()}
    by_hand = (grid - head["centre"]) / head["scale"] @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(classifier(images).numpy(), by_hand, rtol=1e-4, atol=1e-4)


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    description = json.loads((saved / "description.json").read_text())
    description["backbone"]["architecture"] = "resnet10"
    (saved / "description.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="the weights are of another architecture") as error:
        load_classifier(saved)
    one_sentence(error)


def test_weights_for_another_number_of_classes_are_refused(saved: Path) -> None:
    description = json.loads((saved / "description.json").read_text())
    description["class_names"].append("yellow")
    (saved / "description.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="the weights are of another architecture"):
        load_classifier(saved)


def drop_a_tensor(weights: dict[str, Tensor]) -> None:
    del weights["head.centre"]


def add_a_tensor(weights: dict[str, Tensor]) -> None:
    weights["backbone.surplus"] = torch.zeros(1)


@pytest.mark.parametrize("change", [drop_a_tensor, add_a_tensor])
def test_weights_with_a_tensor_too_few_or_too_many_are_refused(
    saved: Path, change: Callable[[dict[str, Tensor]], None]
) -> None:
    weights = load_file(saved / "weights.safetensors")
    change(weights)
    save_file(weights, saved / "weights.safetensors")
    with pytest.raises(InputError, match="the weights are of another architecture"):
        load_classifier(saved)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_weights_are_refused(saved: Path, length: int) -> None:
    weights = saved / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(InputError, match="the weights cannot be read") as error:
        load_classifier(saved)
    one_sentence(error)


def test_missing_weights_are_refused(saved: Path) -> None:
    (saved / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="the weights cannot be read"):
        load_classifier(saved)


@pytest.mark.parametrize("load", [load_classifier, load_backbone])
def test_a_missing_description_is_refused(tmp_path: Path, load: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match=r"no readable description\.json beside the weights") as error:
        load(tmp_path)
    one_sentence(error)


@pytest.mark.parametrize("text", ["", "{", "not json"])
def test_a_description_that_is_no_json_is_refused(saved: Path, text: str) -> None:
    (saved / "description.json").write_text(text)
    with pytest.raises(InputError, match=r"no readable description\.json"):
        load_classifier(saved)


@pytest.mark.parametrize("text", ["{}", "[]", '{"backbone": {}}', '{"backbone": 3}'])
def test_a_description_without_its_fields_is_refused(saved: Path, text: str) -> None:
    (saved / "description.json").write_text(text)
    with pytest.raises(InputError, match=r"description\.json"):
        load_classifier(saved)


def test_the_description_of_a_classifier_is_no_backbone(saved: Path) -> None:
    with pytest.raises(InputError, match=r"description\.json"):
        load_backbone(saved)


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_in_place_of_the_weights_is_refused_and_never_run(saved: Path, tmp_path: Path, form: str) -> None:
    bomb, weights = Bomb(tmp_path / "ran"), saved / "weights.safetensors"
    if form == "pickle":
        weights.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, weights)
    with pytest.raises(InputError, match="the weights cannot be read"):
        load_classifier(saved)
    assert not (tmp_path / "ran").exists()


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))  # noqa: S301 - the test above means something only if this runs
    assert (tmp_path / "ran").exists()
