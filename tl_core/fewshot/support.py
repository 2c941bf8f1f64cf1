"""The support images of an episode: their views, the batches of a training on them, and their features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.data.splits import Indices
from tl_core.freezing.activations import FrozenActivations
from tl_core.heads.prototypes import SHARPNESS, class_means
from tl_core.networks.batch_norms import eval_mode
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.training.loop import Objective
from tl_core.views.fixed import fixed_views, has_random_views

MAX_BATCH = 128

_CHUNK = 256


def count_views(recipe: FinetuneRecipe) -> int:
    """Views of each support image."""
    return recipe.n_views if has_random_views(recipe.augment) else len(fixed_views(recipe.augment))


def support_views(
    activations: FrozenActivations, rows: Indices, recipe: FinetuneRecipe, generator: torch.Generator
) -> Tensor:
    """Activations of every view of every support image: (n_images, n_views, ...); view 0 is the image itself."""
    if not has_random_views(recipe.augment):
        return torch.stack([activations.fixed(rows, view) for view in fixed_views(recipe.augment)], dim=1)
    random = [activations.random(rows, recipe.augment, generator) for _ in range(recipe.n_views - 1)]
    return torch.stack([activations.fixed(rows, view=0), *random], dim=1)


def draw_batches(
    views: Tensor, labels: Tensor, steps: int, generator: torch.Generator, *, paired: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """One view of each image a step; more images than `MAX_BATCH` are walked through in random order.

    Args:
        paired: put the images themselves before their views, (2 n, ...), as pseudo-episodes ask for.
    """
    n_images, n_views = views.shape[:2]
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < min(n_images, MAX_BATCH):
            order = torch.cat([order, torch.randperm(n_images, generator=generator)])
        rows, order = order[:MAX_BATCH], order[MAX_BATCH:]
        chosen = torch.randint(n_views, (len(rows),), generator=generator)
        drawn = views[rows, chosen]
        yield torch.cat([views[rows, 0], drawn]) if paired else drawn, labels[rows]


@torch.no_grad()
def suffix_features(suffix: nn.Module, views: Tensor, *, batch_statistics: bool = False) -> Tensor:
    """Features of every view: (n_images, n_views, ...) to (n_images * n_views, n_features).

    With batch statistics, those of all images in the same view.
    """
    eval_mode(suffix, batch_statistics)
    if batch_statistics:
        return torch.stack([suffix(of_view) for of_view in views.unbind(1)], dim=1).flatten(0, 1)
    return torch.cat([suffix(chunk) for chunk in torch.split(views.flatten(0, 1), _CHUNK)])


def pseudo_episodes(n_classes: int) -> Objective:
    """Objective by which prototypes of images judge views of the same images (Guo et al., 2020; Hu et al., 2022).

    It takes features (2 n, n_features), those of the images before those of their views, and int64 labels (n,).
    """

    def objective(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        points = F.normalize(features - features[: len(labels)].mean(0), dim=1)
        images, views = points.split(len(labels))
        prototypes = F.normalize(class_means(images[None], labels[None], n_classes)[0], dim=1)
        logits = SHARPNESS * views @ prototypes.T
        return F.cross_entropy(logits, labels), (logits.detach().argmax(1) == labels).sum()

    return objective
