"""Mixtures of two images with the same mixture of their targets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2


def mix_batch(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018) or cutmix (Yun et al., 2019), drawn once per batch, each image with a random other.

    Args:
        images: float (n, c, h, w).
        targets: float (n, k), probabilities.
        mixup, cutmix: alpha of the Beta(alpha, alpha) that the share is drawn from; 0 switches the method off. With
            both on, each is drawn half of the time.
        rng: the only source of randomness, whatever the device.

    Returns:
        Images and targets of the same shapes, in another order.
    """
    transforms = [kind(alpha=alpha) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha > 0]
    if not transforms:
        return images, targets
    # torchvision mixes neighbours, which are of one class wherever the batch is sorted by rows.
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    with torch.random.fork_rng(devices=[]):
        # The CPU's generator alone: dropout on an accelerator goes on as it would without mixtures.
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        mixed: tuple[Tensor, Tensor] = v2.RandomChoice(transforms)(images[order], targets[order])
    return mixed
