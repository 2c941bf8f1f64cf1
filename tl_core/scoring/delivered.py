"""Scores of the delivered classifier on new images, estimated from out-of-fold predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tl_core.scoring.classification import count_confusions, reliability
from tl_core.scoring.images import Interval, wilson_of_share
from tl_core.scoring.out_of_fold import OutOfFold

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DeliveredScores:
    """Estimated scores of the delivered classifier on new images, with 95 % intervals.

    Attributes:
        accuracy: on images whose classes are as frequent as those of the labelled images.
        balanced_accuracy: mean recall, as on images of which every class has as many.
        recalls: of each class, without the correction for the images that a fold lacks.
        taken_for: of each class, the one that it is most often taken for; -1 if there is none, or several.
        calibration_error: expected calibration error of the probabilities.
        log_loss: mean cross-entropy of the probabilities.
    """

    accuracy: Interval
    balanced_accuracy: Interval
    recalls: tuple[Interval, ...]
    taken_for: tuple[int, ...]
    calibration_error: float
    log_loss: float


def score_delivered(out_of_fold: OutOfFold, groups: Ints | None = None) -> DeliveredScores:
    """Estimate the scores of the classifier that is fitted to all images.

    Wilson's interval (1927) on all images is too narrow: classifiers made from other images of the same kind differ
    too, and folds share images. It is taken of fewer images; benchmarks/statistics/coverage.py has checked how many.
    Accuracy grows with the number of images; that of the last fold is added by extrapolation (see `lacking_factors`).

    Args:
        groups: int64 (n_images,), of images that were kept in one fold; a group counts as one image.
    """
    labels = out_of_fold.labels
    groups = np.arange(len(labels)) if groups is None else groups
    n_classes = out_of_fold.probabilities.shape[1]
    right = out_of_fold.right()
    gains = _gains(out_of_fold, right)
    every = _Sample.of(right, gains, groups)
    rows_by_class = [np.flatnonzero(labels == label) for label in range(n_classes)]
    of_classes = [_Sample.of(right[rows], gains[rows], groups[rows]) for rows in rows_by_class]
    factor = variance_factor(every.n_groups)
    predicted = out_of_fold.probabilities.argmax(1)
    of_label = out_of_fold.probabilities[np.arange(len(predicted)), out_of_fold.label]
    return DeliveredScores(
        accuracy=_interval([every], factor),
        balanced_accuracy=_interval(of_classes, factor),
        recalls=tuple(_interval([replace(of_class, gain=0.0)], factor) for of_class in of_classes),
        taken_for=find_taken_for(count_confusions(out_of_fold.label, predicted), n_classes),
        calibration_error=reliability(out_of_fold.probabilities.max(1), predicted == out_of_fold.label).error,
        log_loss=float(-np.log(of_label.clip(1e-12)).mean()),
    )


def find_taken_for(confusions: Ints, n_classes: int) -> tuple[int, ...]:
    """Class that each class is most often taken for, from `count_confusions`; -1 if there is none, or several."""
    taken_for, most = [-1] * n_classes, [0] * n_classes
    for true, taken, count in confusions.tolist():
        if taken != true and count >= most[true]:
            taken_for[true] = -1 if count == most[true] else taken
            most[true] = count
    return tuple(taken_for)


def variance_factor(n: int) -> float:
    """Variance of the estimate around the delivered classifier's accuracy, over that of a share of n images."""
    return 1 + min(1.0, 60 / n)


def lacking_factors(out_of_fold: OutOfFold) -> Floats:
    """What the images of a fold would add to each class's recall, over what those of a further one add: (n_classes,).

    Recall is taken to be linear in 1 / number of images of the class. A class with few images is in some of the folds
    only, so that a fold which holds one of them takes a large part of the class, and a further one often none.
    """
    k, n_classes = out_of_fold.n_folds, out_of_fold.probabilities.shape[1]
    of_repeats = []
    for repeat in range(out_of_fold.n_repeats):
        rows = out_of_fold.repeat == repeat
        counts = np.zeros((n_classes, k))
        np.add.at(counts, (out_of_fold.label[rows], out_of_fold.fold[rows]), 1)
        of_repeats.append(_reciprocals(counts))
    without_one, without_two = np.mean(of_repeats, axis=0)
    with_all = 1 / np.maximum(1, np.bincount(out_of_fold.labels, minlength=n_classes))
    factors: Floats = (without_one - with_all) / np.maximum(1e-12, without_two - without_one)
    return factors


def _reciprocals(counts: Floats) -> Floats:
    """Mean of 1 / images of its class that a fit has, over the images held out from it: (2, n_classes).

    First for fits without the image's fold, then for those without a further one.

    Args:
        counts: images of each class in each fold, (n_classes, k).
    """
    n = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(1, n)  # of the class, in each fold
    without_two = 1 / np.maximum(1, n[:, :, None] - counts[:, :, None] - counts[:, None])
    of_others = without_two.sum(2) - np.diagonal(without_two, axis1=1, axis2=2)
    one = (shares / np.maximum(1, n - counts)).sum(1)
    return np.stack([one, (shares * of_others).sum(1) / (counts.shape[1] - 1)])


def _gains(out_of_fold: OutOfFold, right: Floats) -> Floats:
    """What each image adds to the share of right predictions by extrapolation to all images; 0 with two folds."""
    if out_of_fold.n_folds == 2:
        return np.zeros(len(right))
    smaller = out_of_fold.smaller.reshape(out_of_fold.n_repeats, -1).mean(0)
    gains: Floats = lacking_factors(out_of_fold)[out_of_fold.labels] * (right - smaller)
    return gains


@dataclass(frozen=True)
class _Sample:
    """Share of right predictions of some images.

    Attributes:
        gain: what the images of a fold would add to the share.
        n_groups: groups of images; n_effective: independent images that are as informative.
    """

    share: float
    gain: float
    n_groups: int
    n_effective: float

    @classmethod
    def of(cls, right: Floats, gains: Floats, groups: Ints) -> _Sample:
        members = np.unique(groups, return_inverse=True)[1]
        right, gains = _group_means(right, members), _group_means(gains, members)
        return cls(float(right.mean()), float(gains.mean()), len(right), _effective_number(right, len(members)))


def _interval(samples: list[_Sample], factor: float) -> Interval:
    """Interval of the mean of several samples' shares."""
    share = float(np.mean([sample.share + sample.gain for sample in samples]))
    n_effective = len(samples) ** 2 / sum(1 / sample.n_effective for sample in samples)
    interval = wilson_of_share(min(1.0, max(0.0, share)), n_effective / factor)
    return replace(interval, n=sum(sample.n_groups for sample in samples))


def _group_means(values: Floats, members: Ints) -> Floats:
    means: Floats = np.bincount(members, weights=values) / np.bincount(members)
    return means


def _effective_number(means: Floats, n_images: int) -> float:
    """Number of independent images that a mean of groups is worth: between the groups and their images.

    Groups whose images are predicted alike count as one image each, and the more they differ inside, the more.
    """
    n, share = len(means), float(means.mean())
    variance = float(means.var(ddof=1)) if n > 1 else 0.0
    if variance == 0 or n == n_images:
        return float(n)
    certainty = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, n - 1)) ** 2
    return float(n * np.clip(certainty * share * (1 - share) / variance, 1, n_images / n))
