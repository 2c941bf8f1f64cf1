"""None of these: images that look like none of the classes, by their similarity to the nearest class mean.

The similarity is the cosine of an image's features to the mean features of the nearest class. What an image of one's
own classes reaches is seen on images that their class mean was computed without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REFUSED = 0.05
"""Share of images of the known classes that the threshold refuses."""

Features = NDArray[np.float32] | NDArray[np.float64]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class KnownClasses:
    """Means and threshold that tell images of these classes from others.

    Attributes:
        means: float32 (n_classes, d), rows of length 1.
        unlike_below: similarity below which an image looks like none of the classes; None if no class has two images.
    """

    means: NDArray[np.float32]
    unlike_below: float | None


def know_classes(features: Features, labels: Labels, folds: Labels, refused: float = REFUSED) -> KnownClasses:
    """Compute class means from all images, and the threshold from images outside of each fold.

    Args:
        features: (n, d), of each image the mean over its test views.
        labels: int64 (n,), values 0 .. n_classes - 1, each of them there.
        folds: int64 (n_repeats, n), as `group_folds` makes them.
    """
    means = class_means(features, labels, int(labels.max()) + 1).astype(np.float32)
    return KnownClasses(means, unlike_threshold(out_of_fold_similarity(features, labels, folds), refused))


def class_means(features: Features, labels: Labels, n_classes: int) -> Floats:
    """Mean features of each class, scaled to length 1: (n_classes, d); zeros for a class without images."""
    return directions(_class_sums(features, labels, n_classes))


def similarity(features: Features, means: Features) -> Floats:
    """Cosine of features (n, d) to the nearest of the means (n_classes, d) of length 1: (n,)."""
    closest: Floats = (directions(features) @ means.T).max(1)
    return closest


def out_of_fold_similarity(features: Features, labels: Labels, folds: Labels) -> Floats:
    """Similarity of each image to the means of images outside its fold, averaged over the repeats.

    Args:
        folds: int64 (n_repeats, n).

    Returns:
        float64 (n,); a repeat does not count where all images of the class are in one fold, and an image of which
        no repeat counts is NaN.
    """
    rows, total, n_counted = np.arange(len(labels)), np.zeros(len(labels)), np.zeros(len(labels))
    for closeness in _closeness(features, labels, folds):
        counts = np.isfinite(closeness[rows, labels])
        total += np.where(counts, closeness.max(1), 0.0)
        n_counted += counts
    return np.asarray(np.divide(total, n_counted, out=np.full(len(labels), np.nan), where=n_counted > 0))


def unlike_threshold(similarities: Floats, refused: float = REFUSED) -> float | None:
    """Similarity below which a new image of the known classes lies with a probability of `refused`.

    The quantile is that of Weibull, of which this holds for any number of images n >= 1 / refused - 1; of fewer it is
    the smallest similarity. NaN do not count, and None is returned where nothing else is there.
    """
    known = similarities[~np.isnan(similarities)]
    return float(np.quantile(known, refused, method="weibull")) if len(known) else None


def left_out_auroc(features: Features, labels: Labels, folds: Labels) -> float:
    """Mean over classes of how well the similarity separates the others' images from those of a class left out.

    All images are compared with the means of images outside their fold, those of the class left out too.

    Returns:
        Mean area under the ROC curve, 0.5 for chance; NaN of fewer than three classes.
    """
    n_classes = int(labels.max()) + 1
    if n_classes < 3:
        return float("nan")
    without = np.zeros((n_classes, len(labels)))
    for closeness in _closeness(features, labels, folds):
        for left_out in range(n_classes):
            without[left_out] += np.delete(closeness, left_out, axis=1).max(1) / len(folds)
    areas = [auroc(row[labels != left_out], row[labels == left_out]) for left_out, row in enumerate(without)]
    return float(np.mean(areas))


def auroc(known: Floats, unknown: Floats) -> float:
    """Probability that a known image scores higher than an unknown one, ties counted half (Mann and Whitney, 1947)."""
    _, inverse, counts = np.unique(np.concatenate([known, unknown]), return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[inverse]
    wins = ranks[: len(known)].sum() - len(known) * (len(known) + 1) / 2
    return float(wins / (len(known) * len(unknown)))


def group_folds(labels: Labels, groups: Labels, n_folds: int = 5, n_repeats: int = 5, seed: int = 0) -> Labels:
    """Assign images to random folds that share out every class evenly and keep groups together.

    Args:
        groups: int64 (n,), the same for near-duplicates, which lie in one class.

    Returns:
        int64 (n_repeats, n), values 0 .. n_folds - 1.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    rng, fold_of = np.random.default_rng(seed), np.empty((n_repeats, len(first)), dtype=np.int64)
    for of_repeat in fold_of:
        order = np.lexsort((rng.random(len(first)), labels[first]))  # by class, shuffled inside
        of_repeat[order] = np.arange(len(first)) % n_folds
    return fold_of[:, group]


def _closeness(features: Features, labels: Labels, folds: Labels) -> Iterator[Floats]:
    """Yield of each repeat the cosines to the class means of images outside an image's fold.

    Yields:
        float64 (n, n_classes), -inf where a class has no image outside.
    """
    n_classes, scaled = int(labels.max()) + 1, directions(features)
    sums, sizes = _class_sums(features, labels, n_classes), np.bincount(labels, minlength=n_classes)
    for fold in folds:
        closeness = np.empty((len(labels), n_classes))
        for number in np.unique(fold):
            inside = fold == number
            means = directions(sums - _class_sums(features[inside], labels[inside], n_classes))
            has_images = sizes > np.bincount(labels[inside], minlength=n_classes)
            closeness[inside] = np.where(has_images, scaled[inside] @ means.T, -np.inf)
        yield closeness


def _class_sums(features: Features, labels: Labels, n_classes: int) -> Floats:
    members = (labels == np.arange(n_classes)[:, None]).astype(features.dtype)
    return np.asarray(members @ features, dtype=np.float64)


def directions(vectors: Features) -> Floats:
    """Scale rows to length 1; rows of zeros stay as they are."""
    scaled = vectors.astype(np.float64)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
    return scaled
