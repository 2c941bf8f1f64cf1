"""Scores of predictions: precision, recall, confusions and calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Reliability:
    """Predictions in equal bins of confidence; empty bins are left out.

    Attributes:
        counts: predictions in each bin, int64 (n_bins,).
        confidence, accuracy: mean confidence and share of correct predictions, float64 (n_bins,).
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al., 2015): how far confidence and accuracy are apart."""
        return float((self.counts * np.abs(self.confidence - self.accuracy)).sum() / self.counts.sum())


def reliability(confidences: NDArray[np.float64], right: NDArray[np.bool_], n_bins: int = 15) -> Reliability:
    """Reliability diagram: accuracy by confidence (DeGroot and Fienberg, 1983).

    Args:
        confidences: (n,) in [0, 1], the probability of each prediction.
        right: (n,), true where the prediction is correct.
    """
    bins = np.minimum((confidences * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    filled = np.flatnonzero(counts)
    confidence, accuracy = (np.bincount(bins, weights=values, minlength=n_bins) for values in (confidences, right))
    return Reliability(counts[filled], confidence[filled] / counts[filled], accuracy[filled] / counts[filled])


@dataclass(frozen=True)
class ClassificationScores:
    """Accuracy, and precision, recall and F1 averaged over the classes with equal weight."""

    accuracy: float
    precision: float
    recall: float
    f1: float


def score_predictions(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> ClassificationScores:
    """Scores of predicted against true labels; a class that is never predicted has precision 0."""
    from sklearn.metrics import precision_recall_fscore_support  # takes a second, and few commands need it

    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)
    return ClassificationScores(float((labels == predictions).mean()), float(precision), float(recall), float(f1))


def count_confusions(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of the pairs that occur, sorted, int64 (n_pairs, 3): true class, predicted class, count."""
    pairs, counts = np.unique(np.stack([labels, predictions], axis=1), axis=0, return_counts=True)
    return np.column_stack([pairs, counts])


def shares_of_pairs(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each pair of `count_confusions` in its true class, float64 (n_pairs,)."""
    true, _, counts = confusions.T
    shares: NDArray[np.float64] = counts / np.bincount(true, weights=counts)[true]
    return shares


def confusion_matrix(confusions: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares of each true class (row) by predicted class (column) among some classes, float64 (n, n).

    Args:
        confusions: from `count_confusions`.
        classes: int64 (n,), sorted.
    """
    inside = np.isin(confusions[:, :2], classes).all(axis=1)
    rows, columns = np.searchsorted(classes, confusions[inside, :2]).T
    matrix = np.zeros((len(classes), len(classes)))
    matrix[rows, columns] = shares_of_pairs(confusions)[inside]
    return matrix
