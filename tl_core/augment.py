"""Random views of a batch, drawn per image and computed for the whole batch on its own device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tl_core.distributed import ALONE, World
from tl_core.errors import InputError
from tl_core.recipes import parse_augment

CROP_AREA = (0.35, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
COLOUR_STRENGTH = 0.3

N_DIHEDRAL = 8

_GROWTH_SHARE = 2 / 3
_SIZE_STEP = 16


def to_float(images: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).to(torch.float32) / 255


def dihedral_view(images: Tensor, view: int) -> Tensor:
    """One of the eight flips and quarter turns of (n, c, h, w); view 0 is the identity, view 1 the mirror image."""
    mirrored = images.flip(3) if view % 2 else images
    return torch.rot90(mirrored, view // 2, dims=(2, 3))


def has_random_views(augment: str) -> bool:
    """Whether an augmentation's views are drawn, and not all of a short list."""
    return bool({"crop", "colour"} & set(parse_augment(augment)))


def fixed_views(augment: str) -> list[int]:
    """The `dihedral_view` numbers that an augmentation without random views consists of."""
    ops = parse_augment(augment)
    if "dihedral" in ops:
        return list(range(N_DIHEDRAL))
    return [0, 1] if "flip" in ops else [0]


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


def view_sizes(start_size: int, view_size: int, image_size: int, epochs: int) -> list[int]:
    """The side of the training views in each epoch: growing first, then full.

    Growing is progressive resizing (Tan and Le, 2021). Views that end smaller than the images show what is in them as
    large as the whole images do later, since a view is a crop that is scaled up (Touvron et al., 2019).

    Args:
        start_size: the first epoch's side; 0 is the full one throughout.
        view_size: the full side; 0 is that of the images, `image_size`.

    Raises:
        InputError: the views are larger than the images, or the start is larger than the end.
    """
    if view_size > image_size:
        raise InputError(f"view_size is {view_size}; allowed is at most image_size, {image_size}")
    end, name = (view_size, "view_size") if view_size else (image_size, "image_size")
    if start_size > end:
        raise InputError(f"start_size is {start_size}; allowed is at most {name}, {end}")
    if start_size == 0:
        return [end] * epochs
    growing = min(epochs, max(1, round(_GROWTH_SHARE * epochs)))
    grown = np.linspace(start_size, end, growing + 1)[:-1]
    # In steps, because each new shape costs the first step a while.
    sizes = [start_size + int((side - start_size) // _SIZE_STEP) * _SIZE_STEP for side in grown]
    return sizes + [end] * (epochs - growing)


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
