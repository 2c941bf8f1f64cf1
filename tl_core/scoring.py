"""From predictions to numbers that carry their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tl_core.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes with the half-width of its 95 % interval (Student's t)."""

    mean: float
    ci95: float
    sd: float
    n: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.ci95

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.ci95

    def percent(self) -> str:
        """As people read it: `81.25 +- 0.61 % (n=600)`."""
        if not math.isfinite(self.ci95):
            return f"{100 * self.mean:.2f} % (n={self.n}, too few for an interval)"
        return f"{100 * self.mean:.2f} +- {100 * self.ci95:.2f} % (n={self.n})"


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Mean and 95 % interval of independent values; with a single value the interval is infinite."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0:
        raise InputError("no episode was scored; a mean needs at least one")
    if scores.size == 1:
        return Estimate(float(scores[0]), math.inf, math.nan, 1)
    sd = float(scores.std(ddof=1))
    half_width = float(stats.t.ppf(0.975, scores.size - 1)) * sd / math.sqrt(scores.size)
    return Estimate(float(scores.mean()), half_width, sd, int(scores.size))


def paired_difference(
    first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64]
) -> Estimate:
    """Estimate of first - second over the same episodes, in the same order."""
    if len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} scores cannot be paired; both need the same episodes")
    return estimate(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))


@dataclass(frozen=True)
class ClassificationScores:
    """Accuracy, and precision, recall and F1 averaged over the classes with equal weight."""

    accuracy: float
    precision: float
    recall: float
    f1: float


def score_predictions(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> ClassificationScores:
    """Scores of predicted against true labels; a class that is never predicted has precision 0."""
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)
    return ClassificationScores(float((labels == predictions).mean()), float(precision), float(recall), float(f1))


def count_confusions(labels: NDArray[np.int64], predictions: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Counts, int64 (n_classes, n_classes): true classes in rows, predicted ones in columns."""
    return np.asarray(confusion_matrix(labels, predictions, labels=np.arange(n_classes)), dtype=np.int64)
