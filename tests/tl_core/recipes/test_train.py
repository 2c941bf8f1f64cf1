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
        ({"epochs": "5,10", "max_lr": "1,2,3"}, "epochs has 2 values and max_lr has 3"),
        ({"epochs": "5.5"}, "epochs is '5.5'; allowed are whole numbers"),
        ({"max_lr": "fast"}, "max_lr is 'fast'; allowed are numbers"),
        ({"epochs": "0"}, "epochs is 0"),
        ({"freeze_depth": "1,1.5"}, "freeze_depth is 1.5"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; allowed is sgd, adam, adamw"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"augment": "flip,turn"}, "augment is 'turn'"),
        ({"head": "flatten"}, "head is 'flatten'; allowed is linear, dense, dense_norm"),
        ({"patience": -1}, "patience is -1"),
        ({"clip_value": float("nan")}, "clip_value is nan"),
        ({"mixup": -1}, "mixup is -1"),
        ({"cutmix": 101}, "cutmix is 101"),
        ({"norm_statistics": "freeze"}, "norm_statistics is 'freeze'; allowed is auto, keep, learn"),
        ({"ema": 1}, "ema is 1"),
        ({"start_size": 0.5}, "start_size is 0.5"),
        ({"start_size": 16, "freeze_depth": "1,0.5"}, "start_size is 16, but no stage trains everything"),
        ({"cutmix": 1.0}, "cutmix is 1.0, but no stage trains everything; give freeze_depth=0"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        TrainRecipe(**fields)
