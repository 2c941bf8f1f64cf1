"""Learning curve: accuracy by number of labelled images, up to the number that there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tl_core.crossvalidation.folds import Folds
from tl_core.crossvalidation.procedure import Candidate, LabelledFeatures, predict_images, share_points
from tl_core.heads.shares import image_weights
from tl_core.recipes.choices import Priors
from tl_core.scoring.images import Interval, wilson_of_share

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the images of each class that the points of a curve are fitted to."""


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy of classifiers that are fitted to a share of the images.

    Attributes:
        n_images: mean number of images that the classifiers were fitted to.
        accuracy: over the images; with balanced priors the mean recall.
    """

    n_images: float
    accuracy: Interval


def draw_learning_curve(
    data: LabelledFeatures, candidate: Candidate, folds: Folds, priors: Priors, seed: int
) -> tuple[CurvePoint, ...]:
    """Score classifiers fitted to fewer and fewer images of the other folds, on each fold of the first repeat.

    The candidate stays the same, so that only the images change. Shares that leave a class the same images as the one
    before are left out.
    """
    fold = torch.from_numpy(folds.of_image[0])
    rank = _rank_in_class(data.labels, fold, folds.n_folds, seed)
    kept = [mask for share in SHARES for mask in _kept(data.labels, fold, rank, folds.n_folds, share)]
    matrix = data.matrices[candidate.features]
    fits = torch.arange(len(kept))
    solved = share_points(data, matrix, torch.stack(kept), priors).fit(fits, torch.full((len(kept),), candidate.l2))
    points: list[CurvePoint] = []
    for first in range(0, len(kept), folds.n_folds):
        right = torch.zeros(len(fold), dtype=torch.float64)
        for f in range(folds.n_folds):
            images = (fold == f).nonzero()[:, 0]
            predicted = predict_images(solved, first + f, images, matrix.shape[1]).argmax(1)
            right[images] = (predicted == data.labels[images]).double()
        n_images = float(torch.stack(kept[first : first + folds.n_folds]).sum(1).double().mean())
        if not points or n_images > points[-1].n_images:
            points.append(CurvePoint(n_images, _accuracy(right, data.labels, priors)))
    return tuple(points)


def _rank_in_class(labels: Tensor, fold: Tensor, n_folds: int, seed: int) -> Tensor:
    """Position of each image among those of its class that a fit without a fold may use: int64 (n_folds, n)."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    ranks = torch.empty(n_folds, len(labels), dtype=torch.int64)
    members = torch.nn.functional.one_hot(labels[order])
    for f in range(n_folds):
        usable = (fold[order] != f).long()[:, None] * members
        ranks[f, order] = (usable.cumsum(0) * members).sum(1) - 1
    return ranks


def _kept(labels: Tensor, fold: Tensor, rank: Tensor, n_folds: int, share: float) -> list[Tensor]:
    """Images that the fits without each fold may use, at least one of each class: bool (n,) for each fold."""
    masks = []
    for f in range(n_folds):
        others = fold != f
        counts = labels[others].bincount(minlength=int(labels.max()) + 1)
        most = (share * counts).round().long().clamp(min=1)
        masks.append(others & (rank[f] < most[labels]))
    return masks


def _accuracy(right: Tensor, labels: Tensor, priors: Priors) -> Interval:
    every = torch.ones(1, len(labels), dtype=torch.bool)
    weights = image_weights(labels, every, priors)[0].double()
    return wilson_of_share(float((weights * right).sum().clamp(0, 1)), float(1 / weights.square().sum()))
