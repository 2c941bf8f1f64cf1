"""Images whose label is doubtful: confident learning (Northcutt, Jiang and Chuang, 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_core.scoring.out_of_fold import OutOfFold


@dataclass(frozen=True)
class Suspect:
    """An image that out-of-fold predictions confidently put into another class than its label does.

    Attributes:
        image: its position.
        label, likely: the class it is labelled with, and the one that it is taken for.
        margin: probability of the label less that of the most probable other class, in [-1, 1]; low is suspect.
    """

    image: int
    label: int
    likely: int
    margin: float


def find_suspects(out_of_fold: OutOfFold) -> tuple[Suspect, ...]:
    """Images off the diagonal of the confident joint, most suspect (lowest normalised margin) first.

    An image counts for a class where its probability is at least the mean that images labelled so have; of several
    such classes for the most probable one.
    """
    probabilities, labels = out_of_fold.mean_probabilities(), out_of_fold.labels
    confident = _confident_classes(probabilities, labels)
    margins = normalised_margins(probabilities, labels)
    off_diagonal = np.flatnonzero((confident >= 0) & (confident != labels))
    ranked = off_diagonal[np.argsort(margins[off_diagonal], kind="stable")]
    return tuple(Suspect(int(i), int(labels[i]), int(confident[i]), float(margins[i])) for i in ranked)


def confident_joint(out_of_fold: OutOfFold) -> NDArray[np.int64]:
    """Counts, int64 (n_classes, n_classes), of images by label (row) and the class that they confidently belong to."""
    probabilities, labels = out_of_fold.mean_probabilities(), out_of_fold.labels
    confident = _confident_classes(probabilities, labels)
    counts = np.zeros((probabilities.shape[1],) * 2, dtype=np.int64)
    known = confident >= 0
    np.add.at(counts, (labels[known], confident[known]), 1)
    return counts


def normalised_margins(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of the label less the greatest other one: float64 (n,) of (n, n_classes) and int64 (n,)."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    margins: NDArray[np.float64] = probabilities[rows, labels] - others.max(1)
    return margins


def _confident_classes(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class that each image confidently belongs to, int64 (n,); -1 where there is none."""
    n_classes = probabilities.shape[1]
    thresholds = np.array([probabilities[labels == label, label].mean() for label in range(n_classes)])
    # A rounding error must not part an image from a threshold that it defines alone.
    reached = np.where(probabilities >= thresholds - 1e-12, probabilities, -np.inf)
    return np.where(np.isfinite(reached).any(1), reached.argmax(1), -1).astype(np.int64)
