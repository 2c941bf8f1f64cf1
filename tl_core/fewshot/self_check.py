"""Self-check of a backbone: few-shot accuracy on classes that it was not trained on, nothing fine-tuned."""

from __future__ import annotations

import torch
from torch import nn

from tl_core.data.dataset import ImageDataset
from tl_core.data.episodes import build_pool, fit_shape, sample_episode
from tl_core.fewshot.finetuner import Finetuner
from tl_core.networks.backbones import BackboneSpec
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import Estimate, estimate

N_EPISODES = 200

_METHODS = {
    "nearest_centroid": FinetuneRecipe(freeze_depth=1.0, head="prototypes"),
    "linear_probe": FinetuneRecipe(freeze_depth=1.0, head="linear"),
}


def check_features(
    backbone: nn.Module, spec: BackboneSpec, novel: ImageDataset, shape: EpisodeShape, seed: int, device: torch.device
) -> dict[str, Estimate]:
    """Accuracy of nearest centroid and linear probe over episodes of the novel classes, the same ones for both.

    Raises:
        InputError: the novel classes are too few or too small for the shape.
    """
    pool = build_pool(novel, "all")
    shape = fit_shape(pool, shape)
    episodes = [sample_episode(pool, shape, seed, index) for index in range(N_EPISODES)]
    finetuner = Finetuner(backbone, spec, novel, device)
    return {
        name: estimate([result.accuracy for result in finetuner.run_episodes(episodes, recipe)])
        for name, recipe in _METHODS.items()
    }
