"""Training on a labelled set: what is trained, what validation sees, and that the test part chooses nothing."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import write_colour_images
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.data.splits import ClassSplit, split_within_classes
from tl_core.errors import InputError
from tl_core.freezing.activations import FrozenActivations
from tl_core.heads.storage import load_classifier, save_classifier
from tl_core.heads.table import build_head
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.networks.normalise import Normalise
from tl_core.recipes.train import TrainRecipe
from tl_core.training.loop import Batches, Objective, TrainingState, fit
from tl_core.training.optimizers import FitOptions
from tl_core.training.resumable import Epoch
from tl_core.training.staged import Training, predict_rows

SPEC = BackboneSpec("resnet10_small", 16)
CPU = torch.device("cpu")
RECIPE = TrainRecipe(batch_size=8, precision="float32")


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    return load_dataset(str(write_colour_images(tmp_path / "colours", n_per_class=10, size=16)), 16)


@functools.cache
def _built() -> nn.Module:
    return build_backbone(SPEC, seed=0)


def split_of(dataset: ImageDataset) -> ClassSplit:
    return split_within_classes(dataset, val=0.3, test=0.2, seed=0)


def training(dataset: ImageDataset, recipe: TrainRecipe) -> Training:
    return Training(deepcopy(_built()), SPEC, dataset, split_of(dataset), recipe, seed=0, device=CPU)


def train(job: Training, recipe: TrainRecipe) -> list[Epoch]:
    return [epoch for stage in range(len(recipe.stages())) for epoch in job.epochs(stage)]


def weights_of(job: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in job.classifier().state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize("freeze_depth", ["1", "0.5", "0"])
@pytest.mark.parametrize("head", ["linear", "dense", "dense_norm"])
def test_validation_sees_what_the_saved_classifier_answers_to_the_pictures_themselves(
    dataset: ImageDataset, tmp_path: Path, freeze_depth: str, head: str
) -> None:
    """Normalising twice, augmenting validation images, or another transform at inference would all break this."""
    recipe = replace(RECIPE, epochs="1", freeze_depth=freeze_depth, head=head, augment="crop+colour+dihedral")
    job = training(dataset, recipe)
    (epoch,) = train(job, recipe)
    save_classifier(job.classifier(), job.description(), tmp_path / "saved")
    saved, description = load_classifier(tmp_path / "saved")
    rows = split_of(dataset).val
    with torch.inference_mode():
        logits = saved(torch.from_numpy(dataset.images[rows]))
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(dataset.labels[rows]))
    assert epoch.val_loss == pytest.approx(float(loss), rel=1e-4)
    assert description.class_names == dataset.class_names
    again = predict_rows(saved, dataset, split_of(dataset).test, CPU)
    assert again.probabilities.tolist() == pytest.approx(job.predict_test().probabilities.tolist(), abs=1e-6)


def test_the_classifier_normalises_once(dataset: ImageDataset) -> None:
    job = training(dataset, RECIPE)
    classifier = job.classifier()
    pixels = torch.from_numpy(dataset.images[[0, 1, 2, 3]]).permute(0, 3, 1, 2).double() / 255
    mean, std = torch.tensor(SPEC.mean).view(1, 3, 1, 1), torch.tensor(SPEC.std).view(1, 3, 1, 1)
    seen: list[Tensor] = []
    classifier.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    classifier(torch.from_numpy(dataset.images[[0, 1, 2, 3]]))
    assert torch.allclose(seen[0].double(), (pixels - mean) / std, atol=1e-5)


def test_the_test_part_chooses_nothing(dataset: ImageDataset) -> None:
    """With other labels on the test images, and other pixels in them, every weight is the same."""
    recipe = replace(RECIPE, epochs="2,2", freeze_depth="1,0", schedule="plateau", patience=1)
    test = split_of(dataset).test
    labels, images = dataset.labels.copy(), np.array(dataset.images)
    labels[test], images[test] = (labels[test] + 1) % 3, 0
    first = training(dataset, recipe)
    train(first, recipe)
    other = replace(dataset, labels=labels, images=images)
    second = Training(deepcopy(_built()), SPEC, other, split_of(dataset), recipe, seed=0, device=CPU)
    train(second, recipe)
    assert first.predict_test().accuracy != second.predict_test().accuracy
    assert same(weights_of(first), weights_of(second))


def test_what_is_frozen_is_bit_identical_and_the_rest_is_not(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs="2", freeze_depth="0.5")
    job = training(dataset, recipe)
    train(job, recipe)
    before, after = _built().state_dict(), weights_of(job)
    frozen = {name for name in before if name.startswith(("conv1", "bn1", "layer1"))}
    assert frozen
    assert all(torch.equal(before[name], after[f"backbone.{name}"]) for name in frozen)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[f"backbone.{name}"])}
    assert "layer4" in moved


def test_the_head_alone_leaves_the_backbone_as_it_was_and_then_everything_moves(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs="1,1", freeze_depth="1,0")
    job = training(dataset, recipe)
    list(job.epochs(0))
    backbone = {f"backbone.{name}": value for name, value in _built().state_dict().items()}
    assert same(backbone, weights_of(job))
    head = job.classifier().head.weight.clone()
    list(job.epochs(1))
    assert not torch.equal(weights_of(job)["backbone.conv1.weight"], backbone["backbone.conv1.weight"])
    assert not torch.equal(job.classifier().head.weight, head)


def test_a_stage_ends_with_the_weights_that_were_best_on_validation(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs="6", freeze_depth="0", max_lr="0.02", augment="crop")
    job = training(dataset, recipe)
    history, weights = [], []
    for epoch in job.epochs(0):
        history.append(epoch.val_accuracy)
        weights.append(weights_of(job))
    best = history.index(max(history))
    assert best < len(history) - 1, "the last epoch is the best one: this run would not notice the fault"
    assert same(weights[best], weights_of(job))
    assert not same(weights[-1], weights_of(job))


def test_patience_ends_a_stage_that_many_epochs_after_its_best_one(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs="50", patience=2)
    history = [epoch.val_accuracy for epoch in training(dataset, recipe).epochs(0)]
    assert len(history) == history.index(max(history)) + 1 + 2


def test_a_plateau_lowers_the_learning_rate_to_a_tenth(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs="12", schedule="plateau", max_lr="1e-3")
    history = list(training(dataset, recipe).epochs(0))
    best = [epoch.val_accuracy for epoch in history].index(max(epoch.val_accuracy for epoch in history))
    rates = [epoch.training.lr for epoch in history]
    # Four epochs without a better one are one more than its patience; the next epoch has the lower rate.
    assert rates[: best + 5] == pytest.approx([1e-3] * (best + 5))
    assert rates[best + 5] == pytest.approx(1e-4)


@pytest.mark.parametrize("more", [{}, {"patience": 0, "mixup": 1.0, "cutmix": 1.0}], ids=["plain", "mixed"])
@pytest.mark.parametrize("killed_after", [1, 3, 5, 8])
def test_an_interrupted_training_continues_bit_identically(
    dataset: ImageDataset, tmp_path: Path, killed_after: int, more: dict[str, Any]
) -> None:
    recipe = replace(
        RECIPE,
        epochs="6,6",
        freeze_depth="1,0",
        schedule="plateau",
        patience=5,
        max_lr="1e-2",
        augment="crop",
        head="dense_norm",
    )
    recipe = replace(recipe, **more)
    undisturbed = training(dataset, recipe)
    expected = [epoch.training.loss for epoch in train(undisturbed, recipe)]

    def all_epochs(job: Training) -> Iterator[Epoch]:
        for stage in range(2):
            yield from job.epochs(stage, tmp_path / f"{stage}.pt")

    list(itertools.islice(all_epochs(training(dataset, recipe)), killed_after))
    resumed = training(dataset, recipe)
    assert [epoch.training.loss for epoch in all_epochs(resumed)] == expected
    assert same(weights_of(undisturbed), weights_of(resumed))


def test_every_stage_has_its_own_learning_rate(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs="1,2", max_lr="1e-3,1e-4", freeze_depth="0")
    history = train(training(dataset, recipe), recipe)
    assert [(epoch.stage, epoch.training.lr) for epoch in history] == [(1, 1e-3), (2, 1e-4), (2, 1e-4)]


@pytest.mark.parametrize("augment", ["none", "flip", "dihedral"])
def test_kept_activations_train_as_computed_ones_do(
    dataset: ImageDataset, augment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, epochs="2", freeze_depth="0.5", augment=augment)
    kept = [epoch.training.loss for epoch in training(dataset, recipe).epochs(0)]
    monkeypatch.setattr("tl_core.training.staged.KEPT_BYTES", 0)
    computed = [epoch.training.loss for epoch in training(dataset, recipe).epochs(0)]
    assert kept == pytest.approx(computed, rel=1e-4)


def test_the_frozen_part_is_asked_for_many_images_at_once(
    dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of two with eight views: asked batch by batch, every image would be a pass of its own."""
    sizes: list[int] = []
    forward = FrozenActivations._forward
    monkeypatch.setattr(FrozenActivations, "_forward", lambda self, x: (sizes.append(len(x)), forward(self, x))[1])
    recipe = replace(RECIPE, epochs="1", freeze_depth="1", augment="dihedral", batch_size=2)
    train(training(dataset, recipe), recipe)
    of_head, of_validation = 1, 1
    assert len(sizes) <= 8 + of_head + of_validation


def test_the_same_seed_gives_the_same_training(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs="2", freeze_depth="0", augment="crop+flip", head="dense_norm")
    first, second = ([e.training.loss for e in training(dataset, recipe).epochs(0)] for _ in range(2))
    assert first == second


def batches_of(
    dataset: ImageDataset, recipe: TrainRecipe, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Tensor, Tensor]]:
    """What the training loop is given: the first batch of each epoch of each stage."""
    given: list[tuple[Tensor, Tensor]] = []

    def listening(state: TrainingState, batches: Batches, options: FitOptions, objective: Objective) -> Iterator[Any]:
        def overheard(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for number, batch in enumerate(batches(epoch)):
                if number == 0:
                    given.append(batch)
                yield batch

        yield from fit(state, overheard, options, objective)

    monkeypatch.setattr("tl_core.training.resumable.fit", listening)
    spec = BackboneSpec("resnet10_small", dataset.images.shape[1])
    job = Training(build_backbone(spec, 0), spec, dataset, split_of(dataset), recipe, seed=0, device=CPU)
    train(job, recipe)
    return given


@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
def test_views_grow_where_everything_is_trained(tmp_path: Path, augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset(str(write_colour_images(tmp_path / "large", n_per_class=10, size=32)), 32)
    recipe = replace(RECIPE, epochs="1,3", freeze_depth="1,0", augment=augment, start_size=16)
    of_head, *of_all = batches_of(dataset, recipe, monkeypatch)
    assert of_head[0].ndim == 2
    assert [tuple(views.shape[2:]) for views, _ in of_all] == [(16, 16), (16, 16), (32, 32)]


def test_mixtures_have_the_same_shares_of_pictures_and_of_labels(
    dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of one colour each: the colour of a mixture tells what it was mixed of."""
    recipe = replace(RECIPE, epochs="1,2", freeze_depth="1,0", mixup=1.0)
    (_, labels), *mixed = batches_of(dataset, recipe, monkeypatch)
    assert labels.dtype == torch.int64
    pixels = torch.from_numpy(np.array(dataset.images)).permute(0, 3, 1, 2) / 255
    colours = torch.stack([Normalise(SPEC)(pixels[dataset.labels == label]).mean((0, 2, 3)) for label in range(3)])
    for views, targets in mixed:
        assert targets.sum(1).tolist() == pytest.approx([1.0] * 8)
        assert torch.allclose(views.mean((2, 3)), targets @ colours, atol=0.2)
    assert any(0.05 < float(share) < 0.95 for _, targets in mixed for share in targets.flatten())


@pytest.mark.parametrize(
    ("weights", "statistics", "move"),
    [
        ("random", "auto", True),
        ("trained", "auto", False),
        ("trained", "learn", True),
        ("trained", "keep", False),
    ],
)
def test_statistics_are_kept_where_the_network_came_with_them_and_those_of_a_head_are_learnt(
    dataset: ImageDataset, weights: str, statistics: str, move: bool
) -> None:
    backbone = deepcopy(_built())
    if weights == "trained":
        with torch.no_grad():
            backbone.train()(torch.randn(16, 3, 16, 16))
    recipe = replace(RECIPE, epochs="1,1", freeze_depth="0", head="dense_norm", norm_statistics=statistics)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    job = Training(backbone, SPEC, dataset, split_of(dataset), recipe, seed=0, device=CPU)
    train(job, recipe)
    after = job.classifier()
    moved = {
        name: not torch.equal(value, after.backbone.state_dict()[name])
        for name, value in before.items()
        if name.endswith(("running_mean", "running_var"))
    }
    assert len(moved) > 10
    assert set(moved.values()) == {move}
    assert not torch.equal(after.backbone.conv1.weight, before["conv1.weight"])
    assert int(after.head.norm.num_batches_tracked) > 0


def test_statistics_that_are_not_there_cannot_be_kept(dataset: ImageDataset) -> None:
    with pytest.raises(InputError, match="expected norm_statistics auto or learn for new batch norms, got keep"):
        training(dataset, replace(RECIPE, norm_statistics="keep"))


def test_a_start_above_the_full_size_is_refused(dataset: ImageDataset) -> None:
    with pytest.raises(InputError, match="expected start_size of at most image_size, 16, got 17"):
        training(dataset, replace(RECIPE, freeze_depth="0", start_size=17))


def test_training_learns_the_colours(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs="10", freeze_depth="1", max_lr="1e-2")
    job = training(dataset, recipe)
    train(job, recipe)
    assert job.predict_test().accuracy == 1.0


def test_a_standardised_head_sees_features_of_mean_zero_and_variance_one() -> None:
    features = 5 + 3 * torch.randn(200, 7, generator=torch.Generator().manual_seed(0))
    for kind in ("linear", "dense", "dense_norm"):
        head = build_head(kind, 7, 3)
        head.standardise(features)
        seen = (features - head.centre) / head.scale
        assert seen.mean(0).abs().max() < 1e-5
        assert float(seen.square().mean()) == pytest.approx(1, rel=1e-5)
