"""Fine-tuning on a few labelled images, and the scoring of it on many episodes.

The head starts from the support images' features and is then trained together with the unfrozen part of the backbone
(linear probing, then fine-tuning: Kumar et al., 2022). Where nothing is unfrozen and the head is solved, many episodes
are solved at once.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tl_core.data.dataset import ImageDataset
from tl_core.data.episodes import Episode
from tl_core.data.splits import Indices
from tl_core.errors import DataWarning
from tl_core.fewshot.probing import Probing
from tl_core.fewshot.results import EpisodeResult
from tl_core.fewshot.support import MAX_BATCH, Support, count_views, suffix_features
from tl_core.fewshot.tuning import Tuning
from tl_core.freezing.cuts import Cuts
from tl_core.heads.classifier import Classifier
from tl_core.heads.head import Head
from tl_core.networks.backbones import BackboneSpec, n_features
from tl_core.recipes.choices import Priors
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.views.fixed import fixed_views, has_random_views

_GROUP, _SMALL_GROUP = 128, 16
"""Episodes whose images go through the frozen part together; heads are solved for as many at once. Fewer where
each image has many views: a group's features are all in memory."""
_TOGETHER = {"cuda": 16}
"""Episodes that are fine-tuned at once on an accelerator; a CPU gains nothing by it (docs/experiments.md)."""


class Finetuner:
    """One backbone and one dataset, ready to be fine-tuned any number of times, always from the same weights."""

    def __init__(self, backbone: nn.Module, spec: BackboneSpec, dataset: ImageDataset, device: torch.device) -> None:
        self.backbone = backbone.to(device)
        self.spec = spec
        self.dataset = dataset
        self.device = device
        self._n_features = n_features(backbone.cpu(), spec)
        self.backbone.to(device)
        self._cuts = Cuts(self.backbone, spec, dataset.images, device)

    def run_episodes(
        self, episodes: Iterable[Episode], recipe: FinetuneRecipe, together: int = 0
    ) -> Iterator[EpisodeResult]:
        """Fine-tune on each episode's support images and score its query images; all episodes have the same shape.

        Args:
            together: fine-tune so many episodes at once; 0 is what suits the device, and on a CPU that is one.
        """
        probing, tuning = self._probing(recipe), self._tuning(recipe)
        together = together or _TOGETHER.get(self.device.type, 1)
        remaining = iter(episodes)
        while group := list(itertools.islice(remaining, max(_SMALL_GROUP, _GROUP // count_views(recipe.augment)))):
            self.compute(group, recipe)
            if tuning.cut.is_probed(recipe):
                yield from probing.run(group)
            elif together > 1 and tuning.is_stackable:
                for start in range(0, len(group), together):
                    yield from tuning.run_stacked(group[start : start + together])
            else:
                yield from map(tuning.run, group)

    def is_probing(self, recipe: FinetuneRecipe) -> bool:
        """Return True if this recipe fits a solved head alone: many episodes are then solved at once, in any case."""
        return self._cuts.at(recipe).is_probed(recipe)

    def trains_backbone(self, recipe: FinetuneRecipe) -> bool:
        """Return True if this recipe changes the backbone's weights."""
        return recipe.steps > 0 and not self._cuts.at(recipe).is_frozen

    def share(self, recipe: FinetuneRecipe, folder: Path) -> None:
        """Keep this recipe's activations in files of a folder from now on, where other processes can read them."""
        self._cuts.at(recipe).activations.share(folder)

    def compute(self, episodes: Iterable[Episode], recipe: FinetuneRecipe) -> dict[int, NDArray[np.float32]]:
        """Compute the frozen part's activations of these episodes' images; returns all that is shared, by view."""
        cut, episodes = self._cuts.at(recipe), list(episodes)
        for view in fixed_views(recipe.augment) if not has_random_views(recipe.augment) else [0]:
            cut.activations.compute(np.concatenate([e.support_rows for e in episodes]), view)
        for view in fixed_views(recipe.test_views):
            cut.activations.compute(np.concatenate([e.query_rows for e in episodes]), view)
        return cut.activations.shared()

    def adopt(self, recipe: FinetuneRecipe, views: Mapping[int, NDArray[np.float32]]) -> None:
        """Read the activations that another process's `compute` returned, instead of computing them again."""
        self._cuts.at(recipe).activations.adopt(views)

    def fit_classifier(
        self, rows: Indices, recipe: FinetuneRecipe, seed: int, priors: Priors = "balanced"
    ) -> Classifier:
        """Fine-tune on all given rows of the dataset, whose labels are the classes.

        Args:
            priors: whether every class counts the same, as in an episode, or as often as it has images.

        Returns:
            A classifier on the CPU, in evaluation mode, with a copy of the backbone.
        """
        # As many passes over the images as in an episode.
        recipe = replace(recipe, steps=recipe.steps * math.ceil(len(rows) / MAX_BATCH))
        support, tuning = (rows, self.dataset.labels[rows], seed), self._tuning(recipe)
        fitting = self._probing(recipe) if self.is_probing(recipe) else tuning
        try:
            temperature = fitting.find_temperature(support, priors)
            network, fell_back = tuning.train(support)
            backbone = copy.deepcopy(self.backbone)
        finally:
            tuning.cut.restore()
        if fell_back:
            warnings.warn(
                f"fine-tuning with max_lr={recipe.max_lr} made the loss grow and was taken back: backbone and head "
                "of the start were kept; give a lower max_lr",
                DataWarning,
                stacklevel=2,
            )
        head = network[1]
        assert isinstance(head, Head)
        head.take_off_shares(torch.from_numpy(support[1]).to(self.device), priors)
        return Classifier(self.spec, backbone, head, recipe.test_views, temperature).cpu().eval()

    def features_of(self, rows: Indices, recipe: FinetuneRecipe) -> NDArray[np.float32]:
        """Features of images before fine-tuning, float32 (n, n_features)."""
        cut = self._cuts.at(recipe)
        views = cut.activations.fixed(rows, view=0)[:, None]
        return suffix_features(cut.split.suffix, views).cpu().numpy()

    def features_around(
        self, episode: Episode, recipe: FinetuneRecipe
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Features of an episode's support and query images, in this order, before and after fine-tuning.

        Returns:
            Both float32 (n_support + n_query, n_features); the second is None where no part of the backbone is trained.
        """
        tuning = self._tuning(recipe)
        cut = tuning.cut
        views = cut.activations.fixed(np.concatenate([episode.support_rows, episode.query_rows]), view=0)[:, None]
        before = suffix_features(cut.split.suffix, views).cpu().numpy()
        if recipe.steps == 0 or cut.is_frozen:
            return before, None
        try:
            tuning.train((episode.support_rows, episode.support_labels, episode.seed))
            return before, suffix_features(cut.split.suffix, views).cpu().numpy()
        finally:
            cut.restore()

    def settle_max_lr(self, supports: Iterable[Support], recipe: FinetuneRecipe) -> FinetuneRecipe:
        """Return the recipe with a number for a `max_lr` of `auto`: the geometric mean of range tests' suggestions.

        Args:
            supports: of each test the rows, their labels from 0 on, and a seed.
        """
        if recipe.max_lr != "auto":
            return recipe
        tuning = self._tuning(recipe)
        if not tuning.cut.is_trained(recipe):
            return replace(recipe, max_lr=FinetuneRecipe().max_lr)
        logs = [math.log(tuning.suggest_max_lr(support)) for support in supports]
        return replace(recipe, max_lr=math.exp(sum(logs) / len(logs)))

    def _probing(self, recipe: FinetuneRecipe) -> Probing:
        return Probing(self._cuts.at(recipe), recipe, self.device)

    def _tuning(self, recipe: FinetuneRecipe) -> Tuning:
        return Tuning(self._cuts.at(recipe), recipe, self.backbone, self._n_features, self.device)
