"""Recipes refuse what cannot work, in one sentence: expected ..., got ...."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict

import pytest

from tl_core.errors import InputError
from tl_core.recipes.checks import check_range, parse_augment
from tl_core.recipes.choices import AUGMENT_OPS
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe, parse_recipe
from tl_core.recipes.pretrain import PretrainRecipe

FINETUNE_RANGES = {
    "freeze_depth": (0, 1),
    "max_lr": (1e-9, 100),
    "steps": (0, 1_000_000),
    "weight_decay": (0, 10),
    "label_smoothing": (0, 0.99),
}
PRETRAIN_RANGES = {
    "epochs": (1, 100_000),
    "batch_size": (2, 1_000_000),
    "max_lr": (1e-9, 100),
    "weight_decay": (0, 10),
    "label_smoothing": (0, 0.99),
}
SHAPE_RANGES = {"n_way": (0, 10_000), "n_shot": (0, 100_000), "n_query": (0, 100_000)}
FIELDS = [
    (kind, name, low, high)
    for kind, ranges in (
        (FinetuneRecipe, FINETUNE_RANGES),
        (PretrainRecipe, PRETRAIN_RANGES),
        (EpisodeShape, SHAPE_RANGES),
    )
    for name, (low, high) in ranges.items()
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.001, 1.001])
def test_a_value_outside_the_range_is_refused_with_name_value_and_range(value: float) -> None:
    with pytest.raises(InputError) as caught:
        check_range("share", value, 0, 1)
    assert str(caught.value) == f"expected share from 0 to 1, got {value}"


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_both_ends_belong_to_the_range(value: float) -> None:
    check_range("share", value, 0, 1)


@pytest.mark.parametrize(("kind", "name", "low", "high"), FIELDS)
def test_every_field_takes_both_ends_of_its_range(
    kind: Callable[..., object], name: str, low: float, high: float
) -> None:
    kind(**{name: low})
    kind(**{name: high})


@pytest.mark.parametrize(("kind", "name", "low", "high"), FIELDS)
def test_every_field_refuses_what_lies_beyond_and_says_what_was_expected_and_what_came(
    kind: Callable[..., object], name: str, low: float, high: float
) -> None:
    for value in (math.nan, math.inf, low - 1, high + 1):
        with pytest.raises(InputError) as caught:
            kind(**{name: value})
        assert str(caught.value) == f"expected {name} from {low:g} to {high:g}, got {value}"


def test_a_freeze_depth_of_one_and_a_half_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected freeze_depth from 0 to 1, got 1\.5"):
        FinetuneRecipe(freeze_depth=1.5)


@pytest.mark.parametrize("kind", [FinetuneRecipe, PretrainRecipe])
def test_a_recipe_refuses_an_unknown_augmentation(kind: Callable[..., object]) -> None:
    with pytest.raises(InputError, match=r"got 'crop\+mixup'"):
        kind(augment="crop+mixup")


def test_none_is_no_augmentation() -> None:
    assert parse_augment("none") == ()


def test_operations_are_split_at_the_plus() -> None:
    assert parse_augment("crop+flip") == ("crop", "flip")


@pytest.mark.parametrize("augment", ["", "mixup", "crop+", "crop,flip", "Flip", "none+flip", "crop + flip"])
def test_an_unknown_operation_is_refused_with_the_allowed_ones(augment: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_augment(augment)
    message = str(caught.value)
    assert message.startswith("expected augment as none, or ")
    assert message.endswith(f"got {augment!r}")
    assert all(op in message for op in AUGMENT_OPS)


def test_a_recipe_survives_json() -> None:
    recipe = FinetuneRecipe(freeze_depth=0.25, max_lr=3e-3, steps=7, augment="crop+flip", head="cosine")
    assert parse_recipe(json.dumps(asdict(recipe))) == recipe


def test_a_recipe_of_an_older_version_does_not_take_todays_defaults() -> None:
    values = asdict(FinetuneRecipe())
    del values["l2"]
    with pytest.raises(InputError, match="the recipe does not say l2; it is of an older version"):
        parse_recipe(json.dumps(values))


def test_a_recipe_with_a_setting_that_is_gone_asks_for_a_new_search() -> None:
    values = asdict(FinetuneRecipe()) | {"transductive": "none"}
    with pytest.raises(
        InputError, match="expected a recipe of this version, got one with transductive; run its search"
    ):
        parse_recipe(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "null", "[1, 2]", '"crop"', "3"])
def test_a_text_that_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the recipe cannot be read"):
        parse_recipe(text)


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="momentum"):
        parse_recipe('{"momentum": 0.09}')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"freeze_depth": 1.5}', r"expected freeze_depth from 0 to 1, got 1\.5"),
        ('{"max_lr": "often"}', "expected max_lr as auto, or a number from .*, got 'often'"),
        ('{"max_lr": NaN}', "expected max_lr from .*, got nan"),
        ('{"weight_decay": -Infinity}', "expected weight_decay from .*, got -inf"),
        ('{"augment": "mixup"}', "expected augment as none, or .*, got 'mixup'"),
    ],
)
def test_a_field_out_of_range_is_refused_with_what_was_expected_and_what_came(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_recipe(text)


@pytest.mark.parametrize(
    "text", ['{"steps": "ten"}', '{"max_lr": null}', '{"max_lr": [1]}', '{"augment": 5}', '{"augment": null}']
)
def test_a_field_of_another_type_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the recipe cannot be read"):
        parse_recipe(text)


@pytest.mark.parametrize("name", ["steps"])
def test_a_count_that_is_no_whole_number_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        parse_recipe(json.dumps({name: 2.5}))


@pytest.mark.parametrize(("name", "allowed"), [("optimizer", "adamw"), ("head", "cosine")])
def test_an_unknown_choice_is_refused_with_the_allowed_ones(name: str, allowed: str) -> None:
    with pytest.raises(InputError, match=rf"expected {name} as one of .*{allowed}.*, got 'lion'"):
        parse_recipe(json.dumps({name: "lion"}))
