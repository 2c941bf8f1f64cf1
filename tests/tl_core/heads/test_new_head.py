"""A new head is one file and one line: everything else asks the object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from tests.tl_core.fewshot.test_finetuner import HALF, LINEAR_PROBE, PIXELS, RESNET, draw, run, tuner
from tl_core.data.dataset import load_dataset
from tl_core.heads.classifier import ClassifierDescription
from tl_core.heads.storage import load_classifier, save_classifier
from tl_core.networks.backbones import BackboneSpec
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.recipes.heads import HEADS, HeadEntry
from tl_core.search.space import OF_TRAINING, Choice, parse_space

NEW = HeadEntry("tests.tl_core.heads.made_head:MeanDirectionHead", few_shot=True)


@pytest.fixture(autouse=True)
def one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "mean_direction", NEW)


@pytest.mark.parametrize(
    ("spec", "recipe"), [(PIXELS, LINEAR_PROBE), (RESNET, replace(HALF, max_lr=1e-3, steps=10))], ids=["probe", "half"]
)
def test_a_new_head_learns_colours_and_is_stored(
    colours: Path, tmp_path: Path, spec: BackboneSpec, recipe: FinetuneRecipe
) -> None:
    dataset = load_dataset(str(colours), 16)
    recipe = replace(recipe, head="mean_direction", temperature="cv")
    assert min(result.accuracy for result in run(tuner(spec, dataset), draw(dataset, 2), recipe)) > 0.9
    rows = np.arange(len(dataset.labels))
    classifier = tuner(spec, dataset).fit_classifier(rows, recipe, seed=0)
    save_classifier(
        classifier,
        ClassifierDescription(spec, dataset.class_names, recipe.head, temperature=float(classifier.temperature)),
        tmp_path / "classifier",
    )
    loaded, _ = load_classifier(tmp_path / "classifier")
    images = torch.from_numpy(np.array(dataset.images))
    with torch.no_grad():
        assert torch.equal(loaded(images), classifier(images))


def test_the_search_asks_nothing_of_training_for_a_new_solved_head() -> None:
    base = replace(LINEAR_PROBE, head="mean_direction")
    space = parse_space("max_lr+steps+l2+head").including(base)
    assert isinstance(space.parameters["head"], Choice)
    assert "mean_direction" in space.parameters["head"].options
    assert not set(OF_TRAINING) & set(space.point(base))
    study = optuna.create_study()
    study.enqueue_trial(space.point(base))
    assert space.suggest_recipe(study.ask(), LINEAR_PROBE) == base
