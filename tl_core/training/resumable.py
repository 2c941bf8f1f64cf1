"""The epoch loop under pretraining and training in stages: it validates, keeps the best weights, saves and resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.compute.distributed import is_leader
from tl_core.training.loop import Batches, EpochMetrics, Objective, TrainingState, fit
from tl_core.training.optimizers import FitOptions


@dataclass(frozen=True)
class Epoch:
    """An epoch's training metrics, and the validation metrics of the weights after it; stages count from 1."""

    training: EpochMetrics
    val_loss: float
    val_accuracy: float
    stage: int = 1


@dataclass(frozen=True)
class Job:
    """Everything to be trained and validated.

    Attributes:
        validate: from a model to its loss and accuracy on the validation split.
        on_batch: called with the number of images before each step, and with an epoch's number of images for each
            epoch that a checkpoint holds.
        stage: number of the stage, from 1.
    """

    batches: Batches
    objective: Objective
    validate: Callable[[nn.Module], tuple[float, float]]
    on_batch: Callable[[int], object] = lambda _: None
    stage: int = 1


def train_epochs(
    state: TrainingState, job: Job, options: FitOptions, checkpoint: Path | None = None
) -> Iterator[Epoch]:
    """Train and yield after each epoch; at the end the model has the weights with the best validation accuracy.

    With a `checkpoint` path, the state is saved after each epoch and continued from if the file exists; the epochs that
    it holds are yielded again first. Training ends early once the best accuracy is `options.patience` epochs old.

    Raises:
        InputError: the checkpoint cannot be read, or the disk is full.
        TrainingDivergedError: a loss was not finite.
    """
    if checkpoint is not None and checkpoint.is_file():
        state.load(checkpoint)
        for record in state.history:
            job.on_batch(int(record["images"]))
            yield _epoch(record, job.stage)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in job.batches(epoch):
            job.on_batch(len(targets))
            yield inputs, targets

    epochs = fit(state, batches, options, job.objective)
    # Checked before an epoch rather than after it: the checkpoint may be of a training that had ended.
    while not _is_stale(state.history, options.patience) and (metrics := next(epochs, None)) is not None:
        val_loss, val_accuracy = job.validate(state.model)
        state.keep_if_best(val_accuracy)
        state.history.append({**asdict(metrics), "val_loss": val_loss, "val_accuracy": val_accuracy})
        if checkpoint is not None and is_leader():
            state.save(checkpoint)
        yield _epoch(state.history[-1], job.stage)
    state.model.load_state_dict(state.best_weights)


def score_logits(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Cross-entropy and accuracy of logits (n, n_classes) against int64 labels (n,)."""
    return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


def _is_stale(history: list[dict[str, float]], patience: int) -> bool:
    """True if the best validation accuracy is `patience` epochs old; a patience of 0 never ends."""
    scores = [record["val_accuracy"] for record in history]
    return patience > 0 and bool(scores) and len(scores) - 1 - int(np.argmax(scores)) >= patience


def _epoch(record: dict[str, Any], stage: int) -> Epoch:
    training = {name: value for name, value in record.items() if not name.startswith("val_")}
    return Epoch(EpochMetrics(**training), record["val_loss"], record["val_accuracy"], stage)
