"""Support images of an episode: their views, the batches of a training on them, and their features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_core.data.splits import Indices
from tl_core.freezing.activations import FrozenActivations
from tl_core.views.fixed import fixed_views, has_random_views

Support = tuple[Indices, NDArray[np.int64], int]
"""Rows of the dataset, their labels from 0 on, and the seed of whatever is random about them."""

MAX_BATCH = 128

RANDOM_VIEWS = 8
"""Views of each support image where crop or colour make them random."""

_CHUNK = 256


def count_views(augment: str) -> int:
    """Count the views of each support image."""
    return RANDOM_VIEWS if has_random_views(augment) else len(fixed_views(augment))


def support_views(activations: FrozenActivations, rows: Indices, augment: str, generator: torch.Generator) -> Tensor:
    """Activations of every view of every support image: (n_images, n_views, ...); view 0 is the image itself."""
    if not has_random_views(augment):
        return torch.stack([activations.fixed(rows, view) for view in fixed_views(augment)], dim=1)
    random = [activations.random(rows, augment, generator) for _ in range(RANDOM_VIEWS - 1)]
    return torch.stack([activations.fixed(rows, view=0), *random], dim=1)


def draw_batches(
    views: Tensor, labels: Tensor, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw one view of each image a step; more images than `MAX_BATCH` are walked through in random order."""
    n_images, n_views = views.shape[:2]
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < min(n_images, MAX_BATCH):
            order = torch.cat([order, torch.randperm(n_images, generator=generator)])
        rows, order = order[:MAX_BATCH], order[MAX_BATCH:]
        chosen = torch.randint(n_views, (len(rows),), generator=generator)
        yield views[rows, chosen], labels[rows]


@torch.no_grad()
def suffix_features(suffix: nn.Module, views: Tensor) -> Tensor:
    """Features of every view: (n_images, n_views, ...) to (n_images * n_views, n_features)."""
    suffix.eval()
    return torch.cat([suffix(chunk) for chunk in torch.split(views.flatten(0, 1), _CHUNK)])
