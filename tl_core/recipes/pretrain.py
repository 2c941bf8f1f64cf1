"""Hyper-parameters of pretraining."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.recipes.checks import check_count, check_max_lr, check_range, parse_augment
from tl_core.recipes.choices import MaxLr, Optimizer, Precision, Schedule


@dataclass(frozen=True)
class PretrainRecipe:
    """Hyper-parameters of supervised pretraining on the source classes."""

    epochs: int = 10
    """Passes over the training split."""
    batch_size: int = 128
    """Images per optimiser step."""
    max_lr: MaxLr = 0.1
    """Peak learning rate; auto runs a learning-rate range test on the first batches and takes its suggestion."""
    optimizer: Optimizer = "sgd"
    """Optimiser: sgd (Nesterov momentum 0.9), adam, adamw or rmsprop (momentum 0.9)."""
    weight_decay: float = 5e-4
    """Weight decay; biases and norm layers are not decayed."""
    schedule: Schedule = "one_cycle"
    """Learning-rate schedule: one_cycle, or cosine (linear warm-up over 5 % of the steps, then cosine annealing)."""
    label_smoothing: float = 0.1
    """Label smoothing of the cross-entropy loss; 0 switches it off."""
    augment: str = "crop+flip"
    """Data augmentation of the training images: none, or any of flip, dihedral, crop, colour joined by +."""
    mixup: float = 0.0
    """Alpha of mixup's Beta(alpha, alpha); 0 switches it off."""
    cutmix: float = 0.0
    """Alpha of cutmix's Beta(alpha, alpha); 0 switches it off. With mixup as well, each batch draws one of the two."""
    rotation: float = 0.0
    """Weight of an auxiliary loss, predicting by how many quarter turns an image was rotated; 0 switches it off."""
    start_size: int = 0
    """Side of the first epoch's images in pixels, growing to image_size over two thirds of the
    epochs; 0 is image_size throughout."""
    precision: Precision = "auto"
    """Precision of training: float32, bfloat16 (autocast), or auto, bfloat16 where it is faster on the device."""

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, 100_000)
        check_range("batch_size", self.batch_size, 2, 1_000_000)
        check_max_lr(self.max_lr)
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.99)
        check_range("mixup", self.mixup, 0, 100)
        check_range("cutmix", self.cutmix, 0, 100)
        check_range("rotation", self.rotation, 0, 100)
        check_count("start_size", self.start_size, 0, 10_000)
        parse_augment(self.augment)
