"""Fixed views: an image's flips and quarter turns."""

from __future__ import annotations

import torch
from torch import Tensor

from tl_core.recipes.checks import parse_augment

N_DIHEDRAL = 8


def to_float(images: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).to(torch.float32) / 255


def dihedral_view(images: Tensor, view: int) -> Tensor:
    """One of the eight flips and quarter turns of (n, c, h, w); view 0 is the identity, view 1 the mirror image."""
    mirrored = images.flip(3) if view % 2 else images
    return torch.rot90(mirrored, view // 2, dims=(2, 3))


def has_random_views(augment: str) -> bool:
    """Return whether an augmentation's views are random, and not all of a short list."""
    return bool({"crop", "colour"} & set(parse_augment(augment)))


def fixed_views(augment: str) -> list[int]:
    """The `dihedral_view` numbers that an augmentation without random views consists of."""
    ops = parse_augment(augment)
    if "dihedral" in ops:
        return list(range(N_DIHEDRAL))
    return [0, 1] if "flip" in ops else [0]
