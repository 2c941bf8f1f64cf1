"""Hyper-parameters of fine-tuning on a few labelled images."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import get_args

from tl_core.errors import InputError
from tl_core.recipes.checks import check_choice, check_count, check_max_lr, check_range, parse_augment
from tl_core.recipes.choices import (
    Head,
    HeadStart,
    MaxLr,
    Objective,
    Optimizer,
    Precision,
    Temperature,
    TestViews,
    Trained,
    Transductive,
)


def parse_recipe(text: str) -> FinetuneRecipe:
    """Read back a recipe from JSON, checking every field.

    Raises:
        InputError: not JSON, or not a recipe.
    """
    try:
        recipe = FinetuneRecipe(**json.loads(text))
    except (ValueError, TypeError, InputError) as error:
        raise InputError(f"the recipe cannot be read ({error})") from error
    # A field that is missing would silently take today's default.
    missing = {field.name for field in fields(FinetuneRecipe)} - set(json.loads(text))
    if missing:
        raise InputError(f"the recipe does not say {', '.join(sorted(missing))}; it is of an older version")
    return recipe


@dataclass(frozen=True)
class FinetuneRecipe:
    """How a pretrained backbone is fitted to a few labelled images."""

    freeze_depth: float = 1.0
    """Fraction of the backbone's depth that stays frozen: 0 is full fine-tuning, 1 is linear probing."""
    max_lr: MaxLr = 1e-2
    """Peak of the one-cycle learning rate; auto takes what a range test on support images suggests."""
    steps: int = 40
    """Optimiser steps; each sees every support image once, in one of its views. A linear head on a backbone that is
    frozen as a whole takes none: its start is the answer."""
    augment: str = "none"
    """Views of the support images: none, or flip, dihedral, crop, colour joined by +."""
    n_views: int = 8
    """Views drawn per support image when crop or colour make them random."""
    head: Head = "linear"
    """Classifier on the features."""
    head_start: HeadStart = "probe"
    """What a linear head starts from: class prototypes, or logistic regression (probe). Cosine: prototypes."""
    l2: float = 3e-3
    """Penalty of that logistic regression, on features of root mean square length 1."""
    objective: Objective = "cross_entropy"
    """What the unfrozen part is trained by: the head's cross-entropy on views of the support images, or
    pseudo_episodes, in which prototypes of the images judge their views, and the head is fitted afterwards."""
    trained: Trained = "all"
    """Which parameters of the unfrozen part are trained: all, or those of normalisation layers alone."""
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
    transductive: Transductive = "none"
    """Whether queries are judged together and not one by one, which makes results of another column: by
    label_propagation, or with the unfrozen batch norms' statistics taken from them (query_statistics)."""
    precision: Precision = "float32"
    """In which the unfrozen part is trained: float32, bfloat16 autocast, or auto."""

    def __post_init__(self) -> None:
        check_range("freeze_depth", self.freeze_depth, 0, 1)
        check_max_lr(self.max_lr)
        check_count("steps", self.steps, 0, 1_000_000)
        check_count("n_views", self.n_views, 1, 1_000)
        check_choice("head", self.head, get_args(Head))
        check_choice("head_start", self.head_start, get_args(HeadStart))
        check_range("l2", self.l2, 1e-9, 1e9)
        check_choice("objective", self.objective, get_args(Objective))
        check_choice("trained", self.trained, get_args(Trained))
        check_choice("test_views", self.test_views, get_args(TestViews))
        check_choice("temperature", self.temperature, get_args(Temperature))
        check_choice("transductive", self.transductive, get_args(Transductive))
        check_choice("precision", self.precision, get_args(Precision))
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.99)
        parse_augment(self.augment)
