"""Random views of a batch, drawn per image and computed for the whole batch on its own device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tl_core.compute.distributed import ALONE, World
from tl_core.recipes.checks import parse_augment
from tl_core.views.fixed import N_DIHEDRAL, dihedral_view

CROP_AREA = (0.35, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
COLOUR_STRENGTH = 0.3


@dataclass(frozen=True)
class Draws:
    """Random numbers for one process's share of a batch, the same ones that a single process would draw for it.

    `generator` lives on the CPU, whatever the images' device: the same seed gives the same views everywhere.
    """

    generator: torch.Generator
    world: World = ALONE

    def uniform(self, images: Tensor, low: float, high: float) -> Tensor:
        """One number per image: (n,), on the images' device."""
        drawn = torch.rand(len(images) * self.world.size, generator=self.generator) * (high - low) + low
        return drawn[self.world.rank :: self.world.size].to(images.device)

    def integers(self, images: Tensor, high: int) -> Tensor:
        """One of 0 .. high - 1 per image: int64 (n,), on the CPU."""
        drawn = torch.randint(high, (len(images) * self.world.size,), generator=self.generator)
        return drawn[self.world.rank :: self.world.size]


def augment_batch(
    images: Tensor, augment: str, generator: torch.Generator, size: int | None = None, world: World = ALONE
) -> Tensor:
    """A random view of every image.

    Args:
        images: float32, (n, 3, h, w), values in [0, 1].
        augment: operations joined by `+`, see `AUGMENT_OPS`; they are applied in a fixed order.
        generator: on the CPU.
        size: side of the square views; by default that of the images.
        world: the processes that share the batch; all have generators in the same state.

    Returns:
        float32, (n, 3, size, size), values in [0, 1].
    """
    ops, draws = parse_augment(augment), Draws(generator, world)
    size = size or images.shape[2]
    if "crop" in ops:
        images = _random_resized_crop(images, draws, size)
    elif size != images.shape[2]:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    for name, operation in _OPERATIONS.items():
        if name in ops:
            images = operation(images, draws)
    return images


def _random_resized_crop(images: Tensor, draws: Draws, size: int) -> Tensor:
    """Crop of random area and aspect ratio, scaled to (size, size) (Szegedy et al., 2015)."""
    n = len(images)
    area = draws.uniform(images, *CROP_AREA)
    ratio = draws.uniform(images, math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    # In the [-1, 1] coordinates of affine_grid a crop of relative width w may be centred within 1 - w.
    centre_x = draws.uniform(images, -1, 1) * (1 - width)
    centre_y = draws.uniform(images, -1, 1) * (1 - height)
    zero = torch.zeros_like(width)
    theta = torch.stack([width, zero, centre_x, zero, height, centre_y], dim=1).view(n, 2, 3)
    grid = F.affine_grid(theta, [n, images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _random_flip(images: Tensor, draws: Draws) -> Tensor:
    mirror = draws.uniform(images, 0, 1) < 0.5
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def _random_dihedral(images: Tensor, draws: Draws) -> Tensor:
    views = draws.integers(images, N_DIHEDRAL)
    turned = torch.empty_like(images)
    for view in range(N_DIHEDRAL):
        chosen = (views == view).nonzero().squeeze(1).to(images.device)
        turned[chosen] = dihedral_view(images[chosen], view)
    return turned


def _random_colour(images: Tensor, draws: Draws) -> Tensor:
    """Brightness, contrast and saturation, each scaled by a factor within 1 +- `COLOUR_STRENGTH`."""
    brightness, contrast, saturation = (
        draws.uniform(images, 1 - COLOUR_STRENGTH, 1 + COLOUR_STRENGTH)[:, None, None, None] for _ in range(3)
    )
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    grey = images.mean(dim=1, keepdim=True)
    return (grey + (images - grey) * saturation).clamp(0, 1)


_OPERATIONS: dict[str, Callable[[Tensor, Draws], Tensor]] = {
    "flip": _random_flip,
    "dihedral": _random_dihedral,
    "colour": _random_colour,
}
