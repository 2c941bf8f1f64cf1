"""Prototype head: the nearest class mean."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tl_core.heads.head import SolvedHead

SHARPNESS = 10.0
"""Scale of the logits that prototypes give, as in cosine classifiers."""


class PrototypeHead(SolvedHead):
    """Classification by the nearest prototype, the mean of a class's support features (Snell et al., 2017)."""

    @staticmethod
    def solve(
        points: Tensor,
        labels: Tensor,
        n_classes: int,
        l2: float,  # noqa: ARG004 - nothing to penalise
        label_smoothing: float,  # noqa: ARG004
    ) -> tuple[Tensor, Tensor]:
        """Compute the class means, and the linear map that finds the nearest."""
        return nearest_mean(class_means(points, labels, n_classes))


def class_means(points: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Prototypes of float (b, n, d) and int64 (b, n): (b, n_classes, d); zeros for a class without an image."""
    members = F.one_hot(labels, n_classes).to(points.dtype)
    return (members.mT @ points) / members.sum(1).clamp(min=1)[:, :, None]


def nearest_mean(prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (b, c, d) and bias (b, c) of the classifier by the nearest prototype (b, c, d)."""
    # -|x - p|^2 / 2 up to a term that all classes share.
    return SHARPNESS * prototypes, -0.5 * SHARPNESS * prototypes.square().sum(2)
