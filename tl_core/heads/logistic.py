"""Multinomial logistic regression, solved for many episodes at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_MAX_STEPS = 2000
_RANK_TOLERANCE = 1e-6


def fit_logistic(
    points: Tensor,
    labels: Tensor,
    n_classes: int,
    l2: float,
    label_smoothing: float = 0.0,
    tolerance: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: the minimum of mean cross-entropy + l2 / 2 * |weight|^2, bias not penalised.

    In the coordinates of the points' own principal axes the curvature is bounded by a diagonal (Boehning, 1992), which
    makes Nesterov's accelerated gradient with restarts (O'Donoghue and Candes, 2015) converge in tens of steps, all
    episodes side by side.

    Args:
        points: float (b, n, d).
        labels: int64 (b, n), values 0 .. n_classes - 1.
        l2: strength of the penalty, above 0; scikit-learn's C is 1 / (n * l2).
        tolerance: no logit of an episode moves by more in its last step.

    Returns:
        Weight (b, n_classes, d) and bias (b, n_classes).
    """
    n = points.shape[1]
    centre = points.mean(1, keepdim=True)
    axes, variance = _principal_axes(points - centre)
    rotated = (points - centre) @ axes  # (b, n, r); columns are orthogonal and sum to 0
    targets = F.one_hot(labels, n_classes).to(points.dtype)
    targets = targets * (1 - label_smoothing) + label_smoothing / n_classes
    # The curvature of the cross-entropy in the logits is at most 1/2.
    curvature = (0.5 * variance / n + l2)[:, :, None]
    weight = rotated.new_zeros(len(points), rotated.shape[2], n_classes)
    bias = rotated.new_zeros(len(points), 1, n_classes)
    ahead_weight, ahead_bias = weight, bias
    momentum = rotated.new_ones(len(points), 1, 1)
    moving = torch.ones_like(bias[:, :, :1], dtype=torch.bool)
    for _ in range(_MAX_STEPS):
        error = (torch.softmax(rotated @ ahead_weight + ahead_bias, dim=2) - targets) / n
        step_weight = (rotated.mT @ error + l2 * ahead_weight) / curvature
        step_bias = 2 * error.sum(1, keepdim=True)
        # An episode that has arrived stays where it is: no answer depends on the episodes beside it.
        new_weight = torch.where(moving, ahead_weight - step_weight, weight)
        new_bias = torch.where(moving, ahead_bias - step_bias, bias)
        moved_weight, moved_bias = new_weight - weight, new_bias - bias
        # Momentum that points uphill is dropped.
        uphill = _inner(step_weight, moved_weight, curvature) + 0.5 * _inner(step_bias, moved_bias) > 0
        old = torch.where(~uphill, momentum, torch.ones_like(momentum))
        momentum = (1 + (1 + 4 * old.square()).sqrt()) / 2
        push = (old - 1) / momentum
        ahead_weight, ahead_bias = new_weight + push * moved_weight, new_bias + push * moved_bias
        weight, bias = new_weight, new_bias
        far = (rotated @ step_weight).abs().amax((1, 2)) >= tolerance
        moving = moving & (far | (step_bias.abs().amax((1, 2)) >= tolerance))[:, None, None]
        if not bool(moving.any()):
            break
    in_features = (axes @ weight).mT  # (b, c, d)
    return in_features, bias[:, 0] - (in_features @ centre.mT)[:, :, 0]


def _inner(left: Tensor, right: Tensor, metric: Tensor | float = 1.0) -> Tensor:
    return (metric * left * right).sum((1, 2), keepdim=True)


def _principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal axes (b, d, r) and the sum of squares (b, r) along each, r = min(n, d); of empty axes 0."""
    n, d = centred.shape[1:]
    if n >= d:
        squares, axes = _eigh(centred.mT @ centred)
        return axes, squares.clamp(min=0)
    squares, left = _eigh(centred @ centred.mT)
    empty = squares <= _RANK_TOLERANCE * squares[:, -1:]
    inverse = torch.where(empty, torch.zeros_like(squares), squares.clamp(min=1e-30).rsqrt())
    return centred.mT @ (left * inverse[:, None]), torch.where(empty, torch.zeros_like(squares), squares)


def _eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    # Not every accelerator has this decomposition, and for small matrices the CPU is as fast.
    values, vectors = torch.linalg.eigh(symmetric.cpu())
    return values.to(symmetric.device), vectors.to(symmetric.device)
