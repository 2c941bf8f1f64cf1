"""Stages from text: one value for all, or one per stage."""

from __future__ import annotations

from typing import Any

import pytest

from tl_core.errors import InputError
from tl_core.recipes.train import Stage, TrainRecipe


def test_one_value_holds_for_every_stage() -> None:
    recipe = TrainRecipe(epochs="5,10", freeze_depth="1, 0", max_lr="1e-3", optimizer="adam,sgd")
    assert recipe.stages() == (
        Stage(5, 1.0, 1e-3, "adam", "constant", "none"),
        Stage(10, 0.0, 1e-3, "sgd", "constant", "none"),
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"epochs": "5,10", "max_lr": "1,2,3"}, "expected one value of epochs, or one per stage .max_lr has 3., got 2"),
        ({"epochs": "5.5"}, "expected epochs as whole numbers separated by commas, got '5.5'"),
        ({"max_lr": "fast"}, "expected max_lr as numbers separated by commas, got 'fast'"),
        ({"epochs": "0"}, "expected epochs from .*, got 0"),
        ({"freeze_depth": "1,1.5"}, r"expected freeze_depth from 0 to 1, got 1\.5"),
        ({"optimizer": "lion"}, "expected optimizer as one of sgd, adam, adamw"),
        ({"schedule": "step"}, "expected schedule as one of .*, got 'step'"),
        ({"augment": "flip,turn"}, "joined by ., got 'turn'"),
        ({"head": "flatten"}, "expected head as one of linear, dense, dense_norm"),
        ({"patience": -1}, "expected patience from .*, got -1"),
        ({"mixup": -1}, "expected mixup from .*, got -1"),
        ({"cutmix": 101}, "expected cutmix from 0 to 100, got 101"),
        ({"norm_statistics": "freeze"}, "expected norm_statistics as one of auto, keep, learn"),
        ({"start_size": 0.5}, "expected start_size as a whole number"),
        ({"start_size": 16, "freeze_depth": "1,0.5"}, "start_size is 16, but no stage trains everything"),
        ({"cutmix": 1.0}, "cutmix is 1.0, but no stage trains everything; give freeze_depth=0"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        TrainRecipe(**fields)
