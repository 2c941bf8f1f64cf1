"""How a network is trained on a whole labelled set: in stages, from the head alone to as deep as is wanted.

Nothing heavy is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tl_core.errors import InputError
from tl_core.recipes.checks import check_choice, check_count, check_range, parse_augment
from tl_core.recipes.choices import Optimizer, Precision, StageSchedule, TestViews
from tl_core.recipes.heads import TrainHead, train_heads

ClassWeights = Literal["none", "balanced"]
NormStatistics = Literal["auto", "keep", "learn"]


@dataclass(frozen=True)
class Stage:
    """One stretch of training, with its own depth, learning rate and views."""

    epochs: int
    freeze_depth: float
    max_lr: float
    optimizer: Optimizer
    schedule: StageSchedule
    augment: str

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, 100_000)
        check_range("freeze_depth", self.freeze_depth, 0, 1)
        check_range("max_lr", self.max_lr, 1e-9, 100)
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_choice("schedule", self.schedule, get_args(StageSchedule))
        parse_augment(self.augment)

    @property
    def trains_everything(self) -> bool:
        """Whether nothing is frozen."""
        return self.freeze_depth == 0


@dataclass(frozen=True)
class TrainRecipe:
    """How a network is trained on a whole labelled set.

    The first six fields hold one value for all stages, or one per stage with commas between them: `epochs="5,10"` with
    `freeze_depth="1,0"` trains the head for 5 epochs and then everything for 10.
    """

    epochs: str = "5"
    """Passes over the training part, per stage."""
    freeze_depth: str = "1"
    """Fraction of the backbone's depth that stays frozen, per stage: 1 trains the head alone, 0 everything."""
    max_lr: str = "1e-3"
    """Learning rate, or the peak of a schedule, per stage."""
    optimizer: str = "adam"
    """sgd (Nesterov momentum 0.9), adam or adamw, per stage."""
    schedule: str = "constant"
    """constant, one_cycle, cosine, or plateau (a tenth after 3 epochs without a better validation), per stage."""
    augment: str = "none"
    """Views of the training images, per stage: none, or flip, dihedral, crop, colour joined by +."""
    head: TrainHead = "linear"
    """Classifier on the features: linear; dense (1024 units and ReLU before it); or dense_norm, with batch norm and
    dropout as well."""
    dropout: float = 0.5
    """Share of the units that dropout silences in a dense_norm head."""
    batch_size: int = 32
    """Images per step."""
    weight_decay: float = 0.0
    """Weight decay, on weights with two or more dimensions only."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    class_weights: ClassWeights = "none"
    """Whether every image counts the same, or rare classes' images more (balanced)."""
    clip_value: float = 0.0
    """Largest magnitude of a gradient's component, beyond which it is clipped; 0 clips nothing."""
    patience: int = 0
    """Epochs without a better validation accuracy after which a stage ends; 0 runs all."""
    mixup: float = 0.0
    """Alpha of mixup, in stages that train everything; 0 is none."""
    cutmix: float = 0.0
    """Alpha of cutmix, in stages that train everything; 0 is none. With mixup too, each batch draws one of the two."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then validated and kept; 0 is none."""
    start_size: int = 0
    """Size of the first epoch's views where everything is trained; it grows over two thirds. 0 is the full size."""
    norm_statistics: NormStatistics = "auto"
    """Of the backbone's batch norms: learn those of the batches, keep those that came with its weights, or auto, which
    keeps them unless the weights are random."""
    test_views: TestViews = "none"
    """Views of each new image over which probabilities are averaged: itself, flip, or dihedral (8)."""
    precision: Precision = "auto"
    """bfloat16 autocast, float32, or auto: bfloat16 where the device is fast at training the network in it."""

    def __post_init__(self) -> None:
        self.stages()
        check_choice("head", self.head, train_heads())
        check_range("dropout", self.dropout, 0, 0.99)
        check_count("batch_size", self.batch_size, 2, 1_000_000)
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.99)
        check_choice("class_weights", self.class_weights, get_args(ClassWeights))
        check_choice("norm_statistics", self.norm_statistics, get_args(NormStatistics))
        check_range("clip_value", self.clip_value, 0, 1e9)
        check_count("patience", self.patience, 0, 100_000)
        check_range("mixup", self.mixup, 0, 100)
        check_range("cutmix", self.cutmix, 0, 100)
        check_range("ema", self.ema, 0, 0.999999)
        check_count("start_size", self.start_size, 0, 10_000)
        if not any(stage.trains_everything for stage in self.stages()):
            for name in ("mixup", "cutmix", "start_size"):
                if getattr(self, name):
                    raise InputError(
                        f"{name} is {getattr(self, name)}, but no stage trains everything; give freeze_depth=0"
                    )

    def stages(self) -> tuple[Stage, ...]:
        """The stages, in order.

        Raises:
            InputError: fields with different numbers of values, or a value that is not allowed.
        """
        columns = {name: _values(name, getattr(self, name), read) for name, read in _PER_STAGE.items()}
        longest = max(columns, key=lambda name: len(columns[name]))
        n_stages = len(columns[longest])
        for name, values in columns.items():
            if len(values) not in (1, n_stages):
                raise InputError(
                    f"{name} has {len(values)} values and {longest} has {n_stages}; allowed is one, or one per stage"
                )
        rows = zip(*(v * n_stages if len(v) == 1 else v for v in columns.values()), strict=True)
        return tuple(Stage(**dict(zip(columns, row, strict=True))) for row in rows)


_PER_STAGE: dict[str, Callable[[str], Any]] = {
    "epochs": int,
    "freeze_depth": float,
    "max_lr": float,
    "optimizer": str,
    "schedule": str,
    "augment": str,
}


def _values(name: str, text: str, read: Callable[[str], Any]) -> list[Any]:
    try:
        return [read(value.strip()) for value in str(text).split(",")]
    except ValueError as error:
        kind = "whole numbers" if read is int else "numbers"
        raise InputError(f"{name} is {text!r}; allowed are {kind} with commas between them") from error
