"""Class prototypes, and the centring and scaling of features."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SHARPNESS = 10.0
"""Scale of the logits that prototypes give, as in cosine classifiers."""


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
