"""Mixtures of two images with the same mixture of their targets."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def mix_batch(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018) or cutmix (Yun et al., 2019), one draw per batch, partners by permutation.

    Args:
        images: float (n, c, h, w); targets: float (n, k), probabilities.
        mixup, cutmix: alpha of the Beta(alpha, alpha) that the share is drawn from; 0 switches the method off. With
            both on, each is drawn half of the time.

    Returns:
        Images and targets of the same shapes.
    """
    if mixup == 0 and cutmix == 0:
        return images, targets
    use_cutmix = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    share = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if use_cutmix:
        images, share = _paste_box(images, images[partners], share, rng)
    else:
        images = torch.lerp(images[partners], images, share)
    return images, torch.lerp(targets[partners], targets, share)


def _paste_box(images: Tensor, others: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Paste a box of `others` that covers about 1 - share; returns the share that is left, to the pixel."""
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = (int(np.clip(y + sign * side * height / 2, 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(x + sign * side * width / 2, 0, width)) for sign in (-1, 1))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
