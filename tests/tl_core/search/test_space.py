"""What a search may choose: every proposal is a recipe, and every recipe of the space can be proposed."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest

from tl_core.errors import InputError
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.search.space import FREEZE_ALL, OF_TRAINING, PARAMETERS, Choice, Range, SearchSpace, parse_space

EVERYTHING = parse_space("+".join(PARAMETERS))
BASE = FinetuneRecipe()


def propose(space: SearchSpace, base: FinetuneRecipe, n: int) -> list[tuple[FinetuneRecipe, dict[str, object]]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(n)]
    return [(space.suggest_recipe(trial, base), trial.params) for trial in trials]


def test_every_proposal_lies_in_the_space_and_the_rest_is_the_bases() -> None:
    base = FinetuneRecipe(steps=7, temperature="cv")
    for recipe, _ in propose(parse_space("max_lr+freeze_depth+augment"), base, 30):
        assert recipe.freeze_depth == 1 or 0 <= recipe.freeze_depth <= 0.9
        assert recipe.augment in ("none", "flip", "dihedral", "crop")
        assert (recipe.steps, recipe.temperature) == (7, "cv")


def test_where_nothing_is_trained_nothing_of_training_is_asked_for() -> None:
    seen = set()
    for recipe, params in propose(EVERYTHING, BASE, 60):
        solved = recipe.freeze_depth == 1 and recipe.head != "cosine"
        assert solved == (not set(OF_TRAINING) & set(params))
        assert ("freeze_depth" in params) == (not params[FREEZE_ALL])
        seen.add(solved)
    assert seen == {True, False}


def test_a_point_is_what_proposes_its_recipe() -> None:
    for recipe, params in propose(EVERYTHING, BASE, 40):
        assert EVERYTHING.point(recipe) == params
        study = optuna.create_study()
        study.enqueue_trial(EVERYTHING.point(recipe))
        assert EVERYTHING.suggest_recipe(study.ask(), BASE) == recipe


def test_whole_numbers_stay_whole() -> None:
    assert {type(recipe.steps) for recipe, _ in propose(parse_space("steps"), replace(BASE, freeze_depth=0.5), 5)} == {
        int
    }


@pytest.mark.parametrize("base", [BASE, replace(BASE, freeze_depth=0.0), replace(BASE, head="cosine")])
def test_recipes_of_the_literature_lie_in_the_space(base: FinetuneRecipe) -> None:
    known = EVERYTHING.literature(base)
    assert len(known) == len(set(known)) >= 4
    assert base not in known
    for recipe in known:
        assert EVERYTHING.including(recipe) == EVERYTHING


def test_of_the_literature_remains_what_the_space_can_say() -> None:
    known = parse_space("augment").literature(replace(BASE, freeze_depth=0.3))
    assert {recipe.augment for recipe in known} == {"dihedral", "crop"}
    assert {recipe.freeze_depth for recipe in known} == {0.3}


def test_a_space_is_widened_to_reach_a_recipe() -> None:
    wide = EVERYTHING.including(replace(BASE, freeze_depth=0.95, max_lr=0.5, augment="colour", steps=200))
    assert wide.parameters["freeze_depth"] == Range(0.0, 0.95)
    assert wide.parameters["max_lr"] == Range(1e-5, 0.5, log=True)
    assert wide.parameters["steps"] == Range(5, 200, log=True)
    assert wide.parameters["augment"] == Choice(("crop", "dihedral", "flip", "none", "colour"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "expected searched as freeze_depth, augment, .*, got '' .nothing."),
        ("max_lr+layers", "unknown layers"),
        ("max_lr,steps", "unknown max_lr,steps"),
    ],
)
def test_a_space_of_nothing_or_of_unknown_names_is_refused(names: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_space(names)


def test_a_space_in_which_nothing_would_matter_is_refused() -> None:
    with pytest.raises(InputError, match="a linear head on a frozen backbone is solved, not trained"):
        parse_space("max_lr+steps").including(BASE)


@pytest.mark.parametrize(
    ("searched", "base"),
    [
        ("weight_decay", FinetuneRecipe(freeze_depth=0.5, weight_decay=0.0)),
        ("steps", FinetuneRecipe(freeze_depth=0.5, steps=0)),
        ("steps+weight_decay+max_lr", FinetuneRecipe(freeze_depth=0.5, steps=0, weight_decay=0.0, max_lr=100.0)),
        ("freeze_depth+weight_decay", FinetuneRecipe(freeze_depth=0.97, weight_decay=0.0)),
        ("l2+label_smoothing", FinetuneRecipe(l2=1e-9, label_smoothing=0.99)),
        ("steps", FinetuneRecipe(freeze_depth=0.5, steps=1_000_000)),
        ("head+augment", FinetuneRecipe(head="cosine", augment="flip+colour")),
    ],
)
def test_every_base_recipe_is_a_point_of_its_space(searched: str, base: FinetuneRecipe) -> None:
    space = parse_space(searched).including(base)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.point(base))
    assert space.suggest_recipe(study.ask(), base) == base
    proposed = {recipe for recipe, _ in propose(space, base, 20)}
    assert len(proposed) > 5


def test_zero_is_one_choice_beside_a_logarithmic_range() -> None:
    base = FinetuneRecipe(freeze_depth=0.5, weight_decay=0.0)
    space = parse_space("weight_decay").including(base)
    decays = [recipe.weight_decay for recipe, _ in propose(space, base, 60)]
    assert 15 < decays.count(0) < 45
    assert all(value == 0 or 1e-5 <= value <= 1e-1 for value in decays)
    assert space.describe() == {"weight_decay": [1e-5, 1e-1, 0]}
    assert parse_space("weight_decay").including(FinetuneRecipe(freeze_depth=0.5)).describe() == {
        "weight_decay": [1e-5, 1e-1]
    }
