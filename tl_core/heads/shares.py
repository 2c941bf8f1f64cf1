"""What a class counts: the same as any other, or as often as it has images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tl_core.recipes.choices import Priors


def image_weights(labels: Tensor, kept: Tensor, priors: Priors) -> Tensor:
    """Weights of images in fits that hold some of them out; each row sums to 1.

    Args:
        labels: int64 (n,).
        kept: bool (b, n), the images that take part in each fit.

    Returns:
        float32 (b, n), 0 where an image is held out. With `balanced` every class that is there has the same total.
    """
    weights = kept.float()
    if priors == "balanced":
        members = F.one_hot(labels).float()
        weights = weights / ((weights @ members) @ members.T).clamp(min=1)
    return weights / weights.sum(1, keepdim=True)


def class_shifts(counts: Tensor, priors: Priors) -> Tensor:
    """Return what is taken off the logits of a classifier whose fit took each image for as much as any other.

    This is logit adjustment (Menon et al., 2021). With `balanced` it is the logarithm of the class's share of the
    images, up to a constant: what is left says how much an image speaks for a class beyond how frequent the class was.
    Weights in the fit do the same for many images; with a few a penalised fit with weights still leans towards the
    larger classes (docs/experiments.md).

    Args:
        counts: (..., n_classes), images of each class.

    Returns:
        float32 (..., n_classes); 0 with `data`, and where every class has as many images.
    """
    if priors == "data":
        return torch.zeros(counts.shape)
    logarithms = counts.clamp(min=1).float().log()
    return logarithms - logarithms.mean(-1, keepdim=True)
