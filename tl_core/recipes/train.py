"""Hyper-parameters of training on a whole labelled set: in stages, from the head alone to the full network.

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

NormStatistics = Literal["auto", "keep", "learn"]


@dataclass(frozen=True)
class Stage:
    """Consecutive epochs with one freezing depth, optimiser, schedule and augmentation."""

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
        """True if no part of the backbone is frozen."""
        return self.freeze_depth == 0


@dataclass(frozen=True)
class TrainRecipe:
    """Hyper-parameters of training in stages on a whole labelled set.

    The first six fields hold one value for all stages, or one per stage with commas between them: `epochs="5,10"` with
    `freeze_depth="1,0"` trains the head for 5 epochs and then everything for 10.
    """

    epochs: str = "5"
    """Passes over the training split, per stage."""
    freeze_depth: str = "1"
    """Fraction of the backbone's depth that stays frozen, per stage: 1 trains the head alone, 0 the full network."""
    max_lr: str = "1e-3"
    """Learning rate, or its peak where there is a schedule, per stage."""
    optimizer: str = "adam"
    """Optimiser, per stage: sgd (Nesterov momentum 0.9), adam, adamw or rmsprop (momentum 0.9)."""
    schedule: str = "constant"
    """Learning-rate schedule, per stage: constant, one_cycle, cosine, or plateau (a tenth after more than 3 epochs
    without a better validation accuracy)."""
    augment: str = "none"
    """Data augmentation, per stage: none, or any of flip, dihedral, crop, colour joined by +."""
    head: TrainHead = "linear"
    """Classifier on the features: linear; dense (a hidden layer of 1024 units with ReLU); or dense_norm (with batch
    norm and dropout as well)."""
    dropout: float = 0.5
    """Dropout probability in a dense_norm head."""
    batch_size: int = 32
    """Images per optimiser step."""
    weight_decay: float = 0.0
    """Weight decay; biases and norm layers are not decayed."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy loss; 0 switches it off."""
    patience: int = 0
    """Early stopping: epochs without a better validation accuracy after which a stage ends; 0 switches it off."""
    mixup: float = 0.0
    """Alpha of mixup's Beta(alpha, alpha) in stages with freeze_depth 0; 0 switches it off."""
    cutmix: float = 0.0
    """Alpha of cutmix's Beta(alpha, alpha) in stages with freeze_depth 0; 0 switches it off. With mixup as well, each
    batch draws one of the two."""
    start_size: int = 0
    """Side of the first epoch's images in pixels in stages with freeze_depth 0, growing to image_size over two thirds
    of the epochs; 0 is image_size throughout."""
    norm_statistics: NormStatistics = "auto"
    """Statistics of the backbone's batch norms: keep (those of its weights), learn (those of the batches), or auto
    (keep, unless the weights are random)."""
    test_views: TestViews = "none"
    """Test-time augmentation, whose probabilities are averaged: none, flip (2 views) or dihedral (8 views)."""
    precision: Precision = "auto"
    """Precision of training: float32, bfloat16 (autocast), or auto, bfloat16 where it is faster on the device."""

    def __post_init__(self) -> None:
        self.stages()
        check_choice("head", self.head, train_heads())
        check_range("dropout", self.dropout, 0, 0.99)
        check_count("batch_size", self.batch_size, 2, 1_000_000)
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.99)
        check_choice("norm_statistics", self.norm_statistics, get_args(NormStatistics))
        check_count("patience", self.patience, 0, 100_000)
        check_range("mixup", self.mixup, 0, 100)
        check_range("cutmix", self.cutmix, 0, 100)
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
                    f"expected one value of {name}, or one per stage ({longest} has {n_stages}), got {len(values)}"
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
        raise InputError(f"expected {name} as {kind} separated by commas, got {text!r}") from error
