"""Heads of episodes: one head, or many side by side.

Every function works on a batch of `b` episodes that have the same shape; nothing is shared between them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.heads.logistic import fit_logistic
from tl_core.heads.prototypes import SHARPNESS, centre_and_scale, class_means, nearest_mean
from tl_core.recipes.choices import Head, HeadStart

N_NEIGHBOURS, SPREAD = 10, 0.9
"""Of label propagation: edges per image, and the share of a label that travels on."""


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
