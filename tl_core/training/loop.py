"""The one training loop, a generator: logging, saving, pruning and stopping are done by its caller."""

from __future__ import annotations

import io
import math
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tl_core.compute.distributed import process_count, share_gradients, total
from tl_core.compute.small_maps import matrix_convolutions
from tl_core.errors import InputError
from tl_core.files import complete_file
from tl_core.networks.batch_norms import train_mode
from tl_core.training.optimizers import FitOptions, build_optimizer, build_scheduler

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""From the epoch's number to its batches of (inputs, targets): a function of the number alone, so that an
interrupted training sees the same batches again."""

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From (outputs, targets) of a batch to its mean loss and its number of correct predictions."""

PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.1, 3


class TrainingDivergedError(InputError):
    """The loss became NaN or infinite: the learning rate was too high."""


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one pass over the training split."""

    epoch: int
    loss: float
    accuracy: float
    lr: float
    images: int
    seconds: float


@dataclass
class TrainingState:
    """Everything that training changes; `save` and `load` make it resumable."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    plateau: ReduceLROnPlateau | None = None
    epoch: int = 0
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of the epochs so far, in the caller's choice, to be yielded again after a resumption."""

    def keep_if_best(self, score: float) -> None:
        """Keep the weights if their validation score is the best so far, and step a plateau schedule."""
        if self.plateau is not None:
            self.plateau.step(score)
        if score > self.best_score:
            self.best_score = score
            self.best_weights = {name: v.detach().cpu().clone() for name, v in self.model.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write the state atomically: a killed process or a full disk leaves the previous file or the new one.

        Raises:
            InputError: the disk is full.
        """
        state = {
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
            "history": self.history,
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        content = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.save(state, content)
        with complete_file(path) as file:
            file.write(content.getbuffer())

    def load(self, path: Path) -> None:
        """Restore the state that `save` wrote.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"the checkpoint {path} cannot be read ({type(error).__name__}); delete it") from error
        try:
            self._restore(state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                f"the checkpoint {path} is of another training ({type(error).__name__}); delete it"
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])
        self.epoch = state["epoch"]
        self.history = state["history"]
        self.best_score = state["best_score"]
        self.best_weights = state["best_weights"]


def start_training(model: nn.Module, options: FitOptions) -> TrainingState:
    """Optimiser and schedule over the trainable parameters of a model."""
    optimizer = build_optimizer(model, options)
    plateau = None
    if options.schedule == "plateau":
        plateau = ReduceLROnPlateau(optimizer, "max", PLATEAU_FACTOR, PLATEAU_PATIENCE, threshold=0)
    return TrainingState(model, optimizer, build_scheduler(optimizer, options), plateau)


def classification(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy against int64 labels (n,) or float probabilities (n, n_classes).

    Args:
        label_smoothing: share of the target that is spread over all classes.
    """

    def objective(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        return loss, (logits.detach().argmax(1) == labels).sum()

    return objective


def fit(
    state: TrainingState, batches: Batches, options: FitOptions, objective: Objective | None = None
) -> Iterator[EpochMetrics]:
    """Train from `state.epoch` to the last epoch and yield each epoch's metrics after it.

    Raises:
        TrainingDivergedError: a loss was not finite; the message names the step.
    """
    objective = objective or classification(options.label_smoothing)
    model = share_gradients(state.model)
    while state.epoch < options.epochs:
        started = time.perf_counter()
        train_mode(state.model, options.batch_statistics)
        losses, hits, images = [], [], 0
        with torch.random.fork_rng():
            # A function of the epoch, so that dropout too is the same after a resumption.
            torch.manual_seed(options.seed + state.epoch)
            for inputs, targets in batches(state.epoch):
                loss, hit = _step(state, model, inputs, targets, options, objective)
                losses.append(loss)
                hits.append(hit)
                images += len(targets) * process_count()
        loss_of_steps = total(torch.stack(losses)) / process_count()
        _check_finite(loss_of_steps, state.epoch, options)
        state.epoch += 1
        yield EpochMetrics(
            epoch=state.epoch,
            loss=float(loss_of_steps.mean()),
            accuracy=float(total(torch.stack(hits).sum())) / images,
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
        with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32), matrix_convolutions():
            logits.append(model(inputs).float().cpu())
    return torch.cat(logits)


def _step(
    state: TrainingState,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    options: FitOptions,
    objective: Objective,
) -> tuple[Tensor, Tensor]:
    autocast = torch.autocast(inputs.device.type, options.dtype, enabled=options.dtype != torch.float32)
    with autocast, matrix_convolutions():
        outputs = model(inputs).float()
    loss, hits = objective(outputs, targets)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    state.scheduler.step()
    # Kept as tensors: reading a number here would make an accelerator wait at every step.
    return loss.detach(), hits


def _check_finite(losses: Tensor, epoch: int, options: FitOptions) -> None:
    finite = torch.isfinite(losses)
    if not bool(finite.all()):
        step = int((~finite).nonzero()[0]) + 1
        raise TrainingDivergedError(
            f"the loss became {float(losses[step - 1])} at step {step} of epoch {epoch + 1} "
            f"with max_lr={options.max_lr:g}; give a lower max_lr"
        )
