"""Hyper-parameters of pretraining."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.recipes.checks import check_count, check_max_lr, check_range, parse_augment
from tl_core.recipes.choices import MaxLr, Optimizer, Precision, Schedule


@dataclass(frozen=True)
class PretrainRecipe:
    """How a backbone is trained on the source classes."""

    epochs: int = 10
    """Passes over the training part."""
    batch_size: int = 128
    """Images per step."""
    max_lr: MaxLr = 0.1
    """Peak of the learning rate; auto takes what a range test on the first batches suggests."""
    optimizer: Optimizer = "sgd"
    """Optimiser; sgd uses Nesterov momentum 0.9."""
    weight_decay: float = 5e-4
    """Weight decay, on weights with two or more dimensions only."""
    schedule: Schedule = "one_cycle"
    """How the learning rate moves: one cycle, or a short warm-up and a cosine."""
    label_smoothing: float = 0.1
    """Label smoothing of the cross-entropy."""
    augment: str = "crop+flip"
    """Random views: none, or flip, dihedral, crop, colour joined by +."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is none."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is none. With mixup too, each batch draws one of the two."""
    rotation: float = 0.0
    """Weight of a second task, to tell by which quarter turn each image was turned; 0 is none."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then validated and kept; 0 is none."""
    start_size: int = 0
    """Size of the first epoch's views; it grows to the full size over the first two thirds. 0 is the full size."""
    precision: Precision = "auto"
    """bfloat16 autocast, float32, or auto: bfloat16 where the device is fast at training the network in it."""

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, 100_000)
        check_range("batch_size", self.batch_size, 2, 1_000_000)
        check_max_lr(self.max_lr)
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.99)
        check_range("mixup", self.mixup, 0, 100)
        check_range("cutmix", self.cutmix, 0, 100)
        check_range("rotation", self.rotation, 0, 100)
        check_range("ema", self.ema, 0, 0.999999)
        check_count("start_size", self.start_size, 0, 10_000)
        parse_augment(self.augment)
