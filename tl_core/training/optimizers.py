"""Options of the training loop, and the optimiser and learning-rate schedule that they ask for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from tl_core.recipes.choices import Optimizer, StageSchedule

WARMUP_SHARE = 0.05


@dataclass(frozen=True)
class FitOptions:
    """Options of the training loop, beside the model and the batches."""

    epochs: int
    steps_per_epoch: int
    max_lr: float
    optimizer: Optimizer
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    schedule: StageSchedule = "one_cycle"
    """Learning-rate schedule, per step; `plateau` is constant until validation scores lower it."""
    seed: int = 0
    """Seed of randomness inside the model, such as dropout."""
    dtype: torch.dtype = torch.float32
    batch_statistics: bool = True
    """True if batch norm uses (and learns) the statistics of the training batches, false if it keeps those it has; a
    frozen one always keeps them, and a head's own never does."""
    patience: int = 0
    """Epochs without a better validation accuracy after which training ends; 0 runs all."""


def build_scheduler(optimizer: torch.optim.Optimizer, options: FitOptions) -> LRScheduler:
    """One cycle (Smith and Topin, 2018), a short linear warm-up and a cosine (Loshchilov and Hutter, 2017), or none."""
    if options.schedule in ("constant", "plateau"):
        return ConstantLR(optimizer, factor=1.0, total_iters=0)  # leaves the optimiser's rate alone, whoever changes it
    total_steps = max(1, options.epochs * options.steps_per_epoch)
    if options.schedule == "one_cycle":
        return OneCycleLR(optimizer, options.max_lr, total_steps=total_steps, cycle_momentum=False)
    warmup = max(1, round(WARMUP_SHARE * total_steps))
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    fall = CosineAnnealingLR(optimizer, T_max=max(1, total_steps - warmup))
    return SequentialLR(optimizer, [rise, fall], milestones=[warmup])


def build_optimizer(model: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    """The optimiser over a model's trainable parameters."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return optimizer_over([p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1], options)


def optimizer_over(matrices: list[Tensor], vectors: list[Tensor], options: FitOptions) -> torch.optim.Optimizer:
    """The optimiser over some parameters; biases, norm scales and logit scales are not decayed (He et al., 2019)."""
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.max_lr, momentum=0.9, nesterov=True, fused=True)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=options.max_lr, momentum=0.9)
    build = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return build(groups, lr=options.max_lr, fused=True)
