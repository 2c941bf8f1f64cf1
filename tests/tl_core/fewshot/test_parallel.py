"""Episodes in several processes and side by side: the same answers as one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tl_core.fewshot.test_finetuner import (
    FULL,
    HALF,
    LINEAR_PROBE,
    NOISE,
    RESNET,
    answers,
    draw,
    fresh_backbone,
    tuner,
)
from tl_core.compute.devices import one_thread
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.parallel import run_episodes
from tl_core.freezing.activations import MAX_IN_MEMORY, FrozenActivations
from tl_core.networks.backbones import BackboneSpec
from tl_core.recipes.finetune import FinetuneRecipe

RECIPES = {
    "probe": LINEAR_PROBE,
    "half": replace(HALF, augment="dihedral", test_views="flip"),
    "half-crop": replace(HALF, augment="crop"),
    "full": replace(FULL, optimizer="rmsprop", max_lr=1e-4),
}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@recipes
def test_two_processes_give_the_answers_of_one_to_the_last_bit(recipe: FinetuneRecipe) -> None:
    episodes = draw(NOISE, 3)
    alone = [answers(result) for result in run_episodes(tuner(RESNET), episodes, recipe, 1)]
    shared = [answers(result) for result in run_episodes(tuner(RESNET), episodes, recipe, 2)]
    assert shared == alone


@recipes
def test_the_last_episodes_alone_give_the_answers_they_gave_among_all(recipe: FinetuneRecipe) -> None:
    episodes = draw(NOISE, 5)
    among_all = [answers(result) for result in run_episodes(tuner(RESNET), episodes, recipe, 1)]
    alone = [answers(result) for result in run_episodes(tuner(RESNET), episodes[3:], recipe, 1)]
    assert alone == among_all[3:]


def test_a_process_says_that_fine_tuning_was_taken_back() -> None:
    recipe = replace(FULL, optimizer="sgd", max_lr=100.0, steps=30)
    assert all(result.fell_back for result in run_episodes(tuner(RESNET), draw(NOISE, 2), recipe, 2))


@pytest.mark.parametrize("name", ["half", "half-crop", "full"])
@pytest.mark.parametrize("spec", [RESNET, BackboneSpec("vit_tiny_patch16_224", 16)], ids=["resnet", "vit"])
def test_episodes_side_by_side_give_the_answers_of_one_at_a_time(spec: BackboneSpec, name: str) -> None:
    episodes, recipe = draw(NOISE, 3), replace(RECIPES[name], optimizer="sgd", max_lr=1e-2)
    with one_thread():
        alone = [answers(result) for result in tuner(spec).run_episodes(episodes, recipe)]
        together = [answers(result) for result in tuner(spec).run_episodes(episodes, recipe, together=2)]
    for (accuracy, loss, predictions), (accuracy_alone, loss_alone, predictions_alone) in zip(
        together, alone, strict=True
    ):
        assert accuracy == accuracy_alone
        assert loss == pytest.approx(loss_alone, rel=1e-4)
        assert predictions == predictions_alone


def test_side_by_side_training_leaves_the_backbone_as_it_was() -> None:
    finetuner = tuner(RESNET)
    before = {name: value.clone() for name, value in finetuner.backbone.state_dict().items()}
    list(finetuner.run_episodes(draw(NOISE, 2), FULL, together=2))
    assert all(torch.equal(value, before[name]) for name, value in finetuner.backbone.state_dict().items())


def test_large_activations_are_mapped_and_equal_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([7, 3, 3, 40])
    in_memory = activations().fixed(rows, 1)
    monkeypatch.setattr("tl_core.freezing.activations.MAX_IN_MEMORY", 0)
    assert MAX_IN_MEMORY > 0
    mapped = activations()
    assert torch.equal(mapped.fixed(rows, 1), in_memory)
    assert torch.equal(mapped.fixed(rows, 1), in_memory)


def test_activations_do_not_depend_on_who_else_was_asked_for() -> None:
    one, many = activations(), activations()
    many.compute(np.arange(48), 0)
    assert torch.equal(one.fixed(np.array([5]), 0), many.fixed(np.array([5]), 0))


def activations() -> FrozenActivations:
    backbone = fresh_backbone(RESNET).eval()
    return FrozenActivations(backbone, NOISE.images, torch.device("cpu"), keep=True)


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_finetuner_may_change_between_processes_and_none() -> None:
    episodes, finetuner = draw(NOISE, 2), tuner(RESNET)
    first = [answers(result) for result in run_episodes(finetuner, episodes, HALF, 2)]
    assert isinstance(finetuner, Finetuner)
    assert [answers(result) for result in run_episodes(finetuner, episodes, HALF, 1)] == first
