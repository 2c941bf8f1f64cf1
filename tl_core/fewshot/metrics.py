"""Metrics of one episode. A new metric is a function and a line in `METRICS`.

The journal, the nested runs, the parent run's means with their intervals and the episodes table follow from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Metric = Callable[[Tensor, Tensor], float]
"""From logits (n, n_way) and int64 labels (n,) of an episode's query images, on the CPU, to a number."""


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Compute the share of correct predictions."""
    return float((logits.argmax(1) == labels).double().mean())


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Compute the mean cross-entropy."""
    return float(F.cross_entropy(logits, labels))


def macro_precision(logits: Tensor, labels: Tensor) -> float:
    """Compute the mean precision over classes; a class that is never predicted has 0."""
    correct, predicted, _ = _class_counts(logits, labels)
    return float((correct / predicted.clamp(min=1)).mean())


def macro_recall(logits: Tensor, labels: Tensor) -> float:
    """Compute the mean recall over classes."""
    correct, _, actual = _class_counts(logits, labels)
    return float((correct / actual.clamp(min=1)).mean())


def macro_f1(logits: Tensor, labels: Tensor) -> float:
    """Compute the mean F1 score over classes."""
    correct, predicted, actual = _class_counts(logits, labels)
    return float((2 * correct / (predicted + actual).clamp(min=1)).mean())


def _class_counts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correct, predicted and actual images of each class: float64 (n_way,) each."""
    n_way, predictions = logits.shape[1], logits.argmax(1)
    correct, predicted, actual = (
        torch.bincount(of, minlength=n_way).double() for of in (labels[predictions == labels], predictions, labels)
    )
    return correct, predicted, actual


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "loss": cross_entropy,
    "macro_precision": macro_precision,
    "macro_recall": macro_recall,
    "macro_f1": macro_f1,
}
