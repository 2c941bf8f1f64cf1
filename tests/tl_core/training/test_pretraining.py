"""Pretraining's options: what each does to the batches, the weights that count, and the steps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import write_colour_images
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.data.splits import split_within_classes
from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.training.loop import classification, fit, start_training
from tl_core.training.lr_finder import RATES
from tl_core.training.optimizers import FitOptions
from tl_core.training.pretraining import N_TURNS, Pretraining
from tl_core.views.fixed import to_float

CPU = torch.device("cpu")
SPEC = BackboneSpec("resnet10_small", 32)
RECIPE = PretrainRecipe(epochs=6, batch_size=8, max_lr=0.05, precision="float32")


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    return load_dataset(str(write_colour_images(tmp_path / "colours", n_per_class=10, size=32)), 32)


def pretraining(dataset: ImageDataset, recipe: PretrainRecipe, spec: BackboneSpec = SPEC) -> Pretraining:
    split = split_within_classes(dataset, val=0.3, test=0.2, seed=0)
    return Pretraining(build_backbone(spec, seed=0), spec, dataset, split, recipe, seed=0)


def sides(dataset: ImageDataset, recipe: PretrainRecipe) -> list[int]:
    job = pretraining(dataset, recipe)
    return [next(iter(job._batches(epoch, CPU)))[0].shape[2] for epoch in range(recipe.epochs)]


def test_views_grow_to_the_full_size_over_two_thirds_of_the_epochs(dataset: ImageDataset) -> None:
    assert sides(dataset, RECIPE) == [32] * 6
    assert sides(dataset, replace(RECIPE, start_size=16)) == [16, 16, 16, 16, 32, 32]


def test_views_above_the_full_size_are_refused(dataset: ImageDataset) -> None:
    with pytest.raises(InputError, match="expected start_size of at most image_size, 32, got 64"):
        pretraining(dataset, replace(RECIPE, start_size=64))


def test_a_backbone_of_one_size_cannot_grow(dataset: ImageDataset) -> None:
    with pytest.raises(InputError, match="vit_tiny_patch16_224 cannot work on 16 x 16 images"):
        pretraining(dataset, replace(RECIPE, start_size=16), BackboneSpec("vit_tiny_patch16_224", 32))


def test_rotation_turns_each_image_by_what_its_target_says(dataset: ImageDataset) -> None:
    plain = pretraining(dataset, replace(RECIPE, augment="none"))
    turning = pretraining(dataset, replace(RECIPE, augment="none", rotation=0.5))
    for (upright, labels), (turned, targets) in zip(plain._batches(0, CPU), turning._batches(0, CPU), strict=True):
        classes, turns = targets[:, :-N_TURNS], targets[:, -N_TURNS:]
        assert torch.equal(classes.argmax(1), labels)
        for image, other, turn in zip(upright, turned, turns.argmax(1).tolist(), strict=True):
            assert torch.equal(torch.rot90(image, turn, (1, 2)), other)
    assert len(turns.argmax(1).unique()) > 1


def test_the_rotation_task_adds_its_weighted_loss(dataset: ImageDataset) -> None:
    job = pretraining(dataset, replace(RECIPE, rotation=0.5, label_smoothing=0.0))
    outputs = torch.zeros(2, 3 + N_TURNS)
    targets = torch.tensor([[1.0, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 1]])
    loss, _ = job._objective(outputs, targets)
    assert float(loss) == pytest.approx(math.log(3) + 0.5 * math.log(4))


@pytest.mark.parametrize("option", [{"rotation": 0.5}, {"mixup": 0.2, "cutmix": 1.0}])
def test_every_option_still_learns_the_colours(dataset: ImageDataset, option: dict[str, float]) -> None:
    job = pretraining(dataset, replace(RECIPE, epochs=12, **option))
    list(job.epochs(CPU))
    assert job.test_accuracy(CPU) > 0.8


def test_interrupted_mixtures_continue_bit_identically(dataset: ImageDataset, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2, mixup=0.2, rotation=0.5, schedule="cosine")
    undisturbed = pretraining(dataset, recipe)
    expected = [(epoch.training.loss, epoch.val_accuracy) for epoch in undisturbed.epochs(CPU)]
    next(iter(pretraining(dataset, recipe).epochs(CPU, tmp_path / "c.pt")))
    resumed = pretraining(dataset, recipe)
    assert [(epoch.training.loss, epoch.val_accuracy) for epoch in resumed.epochs(CPU, tmp_path / "c.pt")] == expected
    assert torch.equal(
        resumed.backbone.get_parameter("conv1.weight"), undisturbed.backbone.get_parameter("conv1.weight")
    )


def test_a_checkpoint_of_another_training_is_refused(dataset: ImageDataset, tmp_path: Path) -> None:
    next(iter(pretraining(dataset, replace(RECIPE, rotation=1.0)).epochs(CPU, tmp_path / "c.pt")))
    with pytest.raises(InputError, match="is of another training"):
        next(iter(pretraining(dataset, RECIPE).epochs(CPU, tmp_path / "c.pt")))


def test_the_cosine_schedule_warms_up_and_ends_near_zero() -> None:
    options = FitOptions(epochs=1, steps_per_epoch=100, max_lr=1.0, optimizer="sgd", schedule="cosine")
    state = start_training(nn.Linear(2, 2), options)
    rates = []
    for _ in range(100):
        rates.append(state.scheduler.get_last_lr()[0])
        state.optimizer.step()
        state.scheduler.step()
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5 + 95 // 2] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 0.001
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_dropout_is_the_same_after_a_resumption(tmp_path: Path) -> None:
    def model() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))

    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(size=(32, 4)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 3, 32))
    options = FitOptions(epochs=3, steps_per_epoch=1, max_lr=0.1, optimizer="sgd", seed=7)
    expected = [m.loss for m in fit(start_training(model(), options), lambda _: [(inputs, labels)], options)]
    first = start_training(model(), options)
    next(iter(fit(first, lambda _: [(inputs, labels)], options)))
    first.save(tmp_path / "c.pt")
    torch.rand(100)  # another process has drawn other numbers by now
    resumed = start_training(model(), options)
    resumed.load(tmp_path / "c.pt")
    assert [m.loss for m in fit(resumed, lambda _: [(inputs, labels)], options)] == expected[1:]


def test_soft_targets_give_the_cross_entropy_of_the_mixture() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    loss, hits = classification()(logits, torch.tensor([[0.7, 0.3], [0.2, 0.8]]))
    log_p = logits.log_softmax(1)
    by_hand = -(0.7 * log_p[0, 0] + 0.3 * log_p[0, 1] + 0.2 * log_p[1, 0] + 0.8 * log_p[1, 1]) / 2
    torch.testing.assert_close(loss, by_hand)
    assert int(hits) == 2


def test_auto_trains_as_the_suggested_rate_does(dataset: ImageDataset) -> None:
    auto = pretraining(dataset, replace(RECIPE, epochs=1, max_lr="auto"))
    max_lr = auto.settle_max_lr(CPU)
    assert RATES[0] < max_lr < RATES[1]
    named = pretraining(dataset, replace(RECIPE, epochs=1, max_lr=max_lr))
    assert named.settle_max_lr(CPU) == max_lr
    losses = [[epoch.training.loss for epoch in job.epochs(CPU)] for job in (auto, named)]
    assert losses[0] == losses[1]


def test_an_epochs_validation_accuracy_is_that_of_the_weights_after_it(dataset: ImageDataset) -> None:
    job = pretraining(dataset, replace(RECIPE, epochs=4, max_lr=0.02))
    rows = split_within_classes(dataset, val=0.3, test=0.2, seed=0).val
    images = to_float(torch.from_numpy(dataset.images[rows]))
    told, by_hand = [], []
    for epoch in job.epochs(CPU):
        with torch.no_grad():
            predictions = job._model.eval()(images).argmax(1).numpy()
        told.append(epoch.val_accuracy)
        by_hand.append(float((predictions == dataset.labels[rows]).mean()))
    assert told == by_hand
    assert len(set(told)) > 1
