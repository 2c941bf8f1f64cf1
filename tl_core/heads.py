"""Heads on features: class prototypes and multinomial logistic regression, for one episode or many at once.

Every function works on a batch of `b` episodes that have the same shape; nothing is shared between them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.recipes import Head, HeadStart

SHARPNESS = 10.0
"""Scale of the logits that prototypes give, as in cosine classifiers."""

N_NEIGHBOURS, SPREAD = 10, 0.9
"""Of label propagation: edges per image, and the share of a label that travels on."""

_MAX_STEPS = 2000
_RANK_TOLERANCE = 1e-6


class FewShotHead(nn.Module):
    """Logits from features that are first centred and scaled by what the support images say of them.

    `linear` is multinomial logistic regression. `cosine` compares directions, one learned direction per class
    (Gidaris and Komodakis, 2018). Centring is Wang et al. (2019), here by the support's mean, which is all that an
    inductive method may know of the target; without it the features of a backbone all point the same way.
    """

    def __init__(self, kind: Head, n_inputs: int, n_classes: int) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.zeros(n_classes, n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_classes))
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(n_inputs))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """(n, n_inputs) to logits (n, n_classes)."""
        points = self.points(features)
        if self.kind == "cosine":
            return SHARPNESS * points @ F.normalize(self.weight, dim=1).T + self.bias
        return points @ self.weight.T + self.bias

    def points(self, features: Tensor) -> Tensor:
        """Centred features, scaled to root mean square length 1 over the support, or each to length 1."""
        centred = features - self.centre
        return F.normalize(centred, dim=1) if self.kind == "cosine" else centred / self.scale

    @torch.no_grad()
    def start(self, features: Tensor, labels: Tensor, how: HeadStart, l2: float, label_smoothing: float = 0.0) -> None:
        """Set the head by the support images' features (n, n_inputs) and int64 labels (n,).

        `prototypes` classifies by the nearest class mean, `probe` by logistic regression (of a linear head).
        """
        centre, scale = centre_and_scale(features[None])
        self.centre.copy_(centre[0])
        self.scale.copy_(scale[0])
        points = self.points(features)[None]
        n_classes = len(self.bias)
        if how == "probe" and self.kind == "linear":
            weight, bias = fit_logistic(points, labels[None], n_classes, l2, label_smoothing)
        else:
            prototypes = class_means(points, labels[None], n_classes)
            weight, bias = nearest_mean(prototypes) if self.kind == "linear" else (prototypes, torch.zeros(1))
        self.weight.copy_(F.normalize(weight[0], dim=1) if self.kind == "cosine" else weight[0])
        self.bias.copy_(bias[0])


def probe_episodes(
    support: Tensor,
    labels: Tensor,
    queries: Tensor,
    how: HeadStart,
    l2: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Linear heads of many episodes at once, and their logits.

    Args:
        support: float (b, n, d); labels: int64 (b, n); queries: float (b, m, d).

    Returns:
        Logits (b, m, n_classes), those of a linear `FewShotHead` started with the same arguments.
    """
    n_classes = int(labels.max()) + 1
    centre, scale = centre_and_scale(support)
    points = (support - centre[:, None]) / scale[:, None, None]
    if how == "probe":
        weight, bias = fit_logistic(points, labels, n_classes, l2, label_smoothing)
    else:
        weight, bias = nearest_mean(class_means(points, labels, n_classes))
    return ((queries - centre[:, None]) / scale[:, None, None]) @ weight.mT + bias[:, None]


def propagate_labels(support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """Label propagation over support and queries together (Zhou et al., 2004): transductive.

    Args:
        support: float (b, n, d); labels: int64 (b, n); queries: float (b, m, d).

    Returns:
        Logits (b, m, n_classes): the logarithm of what has arrived at each query.
    """
    points = torch.cat([support, queries], dim=1)
    points = F.normalize(points - points.mean(1, keepdim=True), dim=2)
    itself = torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    closeness = (points @ points.mT).masked_fill(itself, -1.0)
    n_neighbours = min(N_NEIGHBOURS, points.shape[1] - 1)
    nearest = closeness >= closeness.topk(n_neighbours, dim=2).values[:, :, -1:]
    weights = torch.where(nearest | nearest.mT, (SHARPNESS * closeness).exp(), torch.zeros_like(closeness))
    degree = weights.sum(2).rsqrt()
    spread = degree[:, :, None] * weights * degree[:, None, :]
    sources = F.one_hot(labels).to(points.dtype)
    sources = F.pad(sources, (0, 0, 0, queries.shape[1]))
    arrived: Tensor = torch.linalg.solve(itself.to(points.dtype) - SPREAD * spread, sources)
    return arrived[:, support.shape[1] :].clamp(min=1e-12).log()


def average_views(logits: Tensor) -> Tensor:
    """Logits of the mean probability over the first axis: (n_views, ..., n_classes) to (..., n_classes)."""
    return logits[0] if len(logits) == 1 else logits.log_softmax(-1).logsumexp(0)


def centre_and_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (b, d) of the features (b, n, d), and the root mean square length (b,) of what is left without it."""
    centre = features.mean(1)
    length = (features - centre[:, None]).square().sum(2).mean(1).sqrt()
    return centre, length.clamp(min=1e-12)


def class_means(points: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Prototypes (Snell et al., 2017): float (b, n, d) and int64 (b, n) to (b, n_classes, d); 0 without an image."""
    members = F.one_hot(labels, n_classes).to(points.dtype)
    return (members.mT @ points) / members.sum(1).clamp(min=1)[:, :, None]


def nearest_mean(prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (b, c, d) and bias (b, c) of the classifier by the nearest prototype (b, c, d)."""
    # -|x - p|^2 / 2 up to a term that all classes share.
    return SHARPNESS * prototypes, -0.5 * SHARPNESS * prototypes.square().sum(2)


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
