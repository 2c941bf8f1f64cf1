"""The one training loop. It is a generator: whoever wants to log, save, prune or stop does so from outside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from tl_core.errors import InputError
from tl_core.recipes import Optimizer

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""From the epoch's number to its batches of (inputs, labels): a function of the number alone, so that an
interrupted training sees the same batches again."""


class TrainingDivergedError(InputError):
    """The loss became NaN or infinite: the learning rate was too high."""


@dataclass(frozen=True)
class FitOptions:
    """What the loop needs to know beside the model and the batches."""

    epochs: int
    steps_per_epoch: int
    max_lr: float
    optimizer: Optimizer
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    dtype: torch.dtype = torch.float32
    batch_statistics: bool = True
    """Whether batch norm uses (and learns) the statistics of the training batches, or keeps those it has."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one pass gave."""

    epoch: int
    loss: float
    accuracy: float
    lr: float
    images: int
    seconds: float


@dataclass
class TrainingState:
    """All that changes while a model is trained; `save` and `load` make a training resumable."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    epoch: int = 0
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def keep_if_best(self, score: float) -> None:
        """Remember the present weights if their validation score is the highest so far."""
        if score > self.best_score:
            self.best_score = score
            self.best_weights = {name: v.detach().cpu().clone() for name, v in self.model.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write the state beside `path` and rename it: a killed process leaves the file before or the file after."""
        scratch = path.with_name(path.name + ".part")
        state = {
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        torch.save(state, scratch)
        scratch.replace(path)

    def load(self, path: Path) -> None:
        """Continue from what `save` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.epoch = state["epoch"]
        self.best_score = state["best_score"]
        self.best_weights = state["best_weights"]


def start_training(model: nn.Module, options: FitOptions) -> TrainingState:
    """Optimiser and one-cycle schedule (Smith and Topin, 2018) over the trainable parameters of a model."""
    optimizer = build_optimizer(model, options)
    total_steps = max(1, options.epochs * options.steps_per_epoch)
    scheduler = OneCycleLR(optimizer, options.max_lr, total_steps=total_steps, cycle_momentum=False)
    return TrainingState(model, optimizer, scheduler)


def fit(state: TrainingState, batches: Batches, options: FitOptions) -> Iterator[EpochMetrics]:
    """Train from `state.epoch` to the last epoch and yield each epoch's metrics after it.

    Raises:
        TrainingDivergedError: a loss was not finite; the message names the step.
    """
    while state.epoch < options.epochs:
        started = time.perf_counter()
        _train_mode(state.model, options.batch_statistics)
        losses, hits, images = [], [], 0
        for inputs, labels in batches(state.epoch):
            loss, hit = _step(state, inputs, labels, options)
            losses.append(loss)
            hits.append(hit)
            images += len(labels)
        loss_of_steps = torch.stack(losses)
        _check_finite(loss_of_steps, state.epoch, options)
        state.epoch += 1
        yield EpochMetrics(
            epoch=state.epoch,
            loss=float(loss_of_steps.mean()),
            accuracy=float(torch.stack(hits).sum()) / images,
            lr=float(state.scheduler.get_last_lr()[0]),
            images=images,
            seconds=time.perf_counter() - started,
        )


@torch.inference_mode()
def predict_logits(model: nn.Module, batches: Iterable[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    """Logits of all batches in evaluation mode: float32 (n, n_classes) on the CPU."""
    model.eval()
    logits = []
    for inputs in batches:
        with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32):
            logits.append(model(inputs).float().cpu())
    return torch.cat(logits)


def _step(state: TrainingState, inputs: Tensor, labels: Tensor, options: FitOptions) -> tuple[Tensor, Tensor]:
    with torch.autocast(inputs.device.type, options.dtype, enabled=options.dtype != torch.float32):
        logits = state.model(inputs).float()
    loss = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    state.scheduler.step()
    # Kept as tensors: reading a number here would make an accelerator wait at every step.
    return loss.detach(), (logits.detach().argmax(1) == labels).sum()


def _train_mode(model: nn.Module, batch_statistics: bool) -> None:
    model.train()
    if not batch_statistics:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def build_optimizer(model: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    """The optimiser over a model's trainable parameters."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        # Biases, norm scales and logit scales are not decayed (He et al., 2019).
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.max_lr, momentum=0.9, nesterov=True, fused=True)
    build = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return build(groups, lr=options.max_lr, fused=True)


def _check_finite(losses: Tensor, epoch: int, options: FitOptions) -> None:
    finite = torch.isfinite(losses)
    if not bool(finite.all()):
        step = int((~finite).nonzero()[0]) + 1
        raise TrainingDivergedError(
            f"the loss became {float(losses[step - 1])} at step {step} of epoch {epoch + 1} "
            f"with max_lr={options.max_lr:g}; give a lower max_lr"
        )
