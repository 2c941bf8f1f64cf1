"""Whitening of features by how much they vary within the classes of the source.

A direction in which images of one class differ much says little of the class. It is shortened, as in linear
discriminant analysis (Fisher, 1936), but by the many classes of the source rather than the few images of the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

ALPHA = 3.0
"""Weight of the mean variance beside the covariance; of 1, 3 and 10 it gained most often (docs/experiments.md)."""


def within_class_covariance(features: Tensor, labels: Tensor) -> Tensor | None:
    """Covariance of features around the means of their classes; None where no class has two images.

    Args:
        features: float (n, d).
        labels: int64 (n,).

    Returns:
        float32 (d, d).
    """
    classes, of_image = labels.unique(return_inverse=True)
    if len(labels) <= len(classes):
        return None
    points = features.double()
    sums = points.new_zeros(len(classes), points.shape[1]).index_add(0, of_image, points)
    centred = points - (sums / of_image.bincount()[:, None])[of_image]
    covariance: Tensor = centred.T @ centred / (len(labels) - len(classes))
    return covariance.float()


def whitening(covariance: Tensor, alpha: float = ALPHA) -> Tensor:
    """Symmetric matrix W that whitens features (n, d) as features @ W.

    W is the inverse root of the covariance plus alpha times its mean variance on the diagonal, times the root of that
    mean: features keep about their size.

    Args:
        covariance: float (d, d).

    Returns:
        float32 (d, d).
    """
    mean_variance = covariance.double().trace() / len(covariance)
    if mean_variance <= 0:
        return torch.eye(len(covariance))
    relative = covariance.double() / mean_variance
    values, vectors = torch.linalg.eigh(relative + alpha * torch.eye(len(relative), dtype=relative.dtype))
    matrix: Tensor = (vectors * values.rsqrt()) @ vectors.T
    return matrix.float()
