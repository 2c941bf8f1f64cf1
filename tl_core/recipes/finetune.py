"""Hyper-parameters of fine-tuning on a few labelled images."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import get_args

from tl_core.errors import InputError
from tl_core.recipes.checks import check_choice, check_count, check_max_lr, check_range, parse_augment
from tl_core.recipes.choices import MaxLr, Optimizer, Precision, Temperature, TestViews
from tl_core.recipes.heads import FewShotHead, few_shot_heads


def parse_recipe(text: str) -> FinetuneRecipe:
    """Read back a recipe from JSON, checking every field.

    Raises:
        InputError: not JSON, or not a recipe.
    """
    known = {field.name for field in fields(FinetuneRecipe)}
    try:
        values = json.loads(text)
        unknown = set(values) - known
        recipe = FinetuneRecipe(**{name: value for name, value in values.items() if name in known})
    except (ValueError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"the recipe cannot be read ({error})") from error
    if unknown:
        raise InputError(
            f"expected a recipe of this version, got one with {', '.join(sorted(unknown))}; run its search again"
        )
    # A field that is missing would silently take today's default.
    missing = known - set(values)
    if missing:
        raise InputError(f"the recipe does not say {', '.join(sorted(missing))}; it is of an older version")
    return recipe


def safe_recipe() -> FinetuneRecipe:
    """Return the default recipe with a range test for the rate; networks differ a hundredfold in what they bear."""
    return FinetuneRecipe(max_lr="auto")


def believable_recipe() -> FinetuneRecipe:
    """Return the safe recipe with a temperature: the classifier that is kept is asked how sure it is."""
    return FinetuneRecipe(max_lr="auto", temperature="cv")


@dataclass(frozen=True)
class FinetuneRecipe:
    """Hyper-parameters of fine-tuning on a few labelled images."""

    freeze_depth: float = 1.0
    """Fraction of the backbone's depth that stays frozen: 0 is full fine-tuning, 1 is linear probing."""
    max_lr: MaxLr = 1e-2
    """Peak of the one-cycle learning rate; auto takes what a range test on support images suggests."""
    steps: int = 40
    """Optimiser steps; each sees every support image once, in one of its views. A linear or prototype head on a
    backbone that is frozen as a whole takes none: its start is the solution."""
    augment: str = "none"
    """Views of the support images: none, or flip, dihedral, crop, colour joined by +."""
    head: FewShotHead = "linear"
    """Classifier on the features: linear starts from logistic regression, cosine and prototypes from class means."""
    l2: float = 3e-3
    """Penalty of the logistic regression on features of root mean square length 1, with 25 images; with more it falls,
    with fewer it grows in inverse proportion."""
    optimizer: Optimizer = "adamw"
    """Optimiser of the unfrozen part and the head."""
    weight_decay: float = 1e-2
    """Weight decay."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    test_views: TestViews = "none"
    """Views of each new image over which probabilities are averaged: itself, flip, or dihedral (8)."""
    temperature: Temperature = "none"
    """Whether the logits are divided by a temperature that cross-validation inside the support finds (cv), so that
    probabilities can be believed; a head that is trained is then trained once more for each of up to 5 folds."""
    precision: Precision = "float32"
    """In which the unfrozen part is trained: float32, bfloat16 autocast, or auto."""

    def __post_init__(self) -> None:
        check_range("freeze_depth", self.freeze_depth, 0, 1)
        check_max_lr(self.max_lr)
        check_count("steps", self.steps, 0, 1_000_000)
        check_choice("head", self.head, few_shot_heads())
        check_range("l2", self.l2, 1e-9, 1e9)
        check_choice("test_views", self.test_views, get_args(TestViews))
        check_choice("temperature", self.temperature, get_args(Temperature))
        check_choice("precision", self.precision, get_args(Precision))
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.99)
        parse_augment(self.augment)
