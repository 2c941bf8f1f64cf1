"""Steps on the unfrozen part of a backbone and its head: for one support set, or for several side by side.

A head knows its support images before any step, as it starts from them. Steps that leave it with a much greater loss on
them were too large, and are taken back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.compute.devices import pick_dtype
from tl_core.data.episodes import Episode
from tl_core.data.splits import Indices
from tl_core.fewshot.results import EpisodeResult, score_episode
from tl_core.fewshot.stacked import StackedNetworks
from tl_core.fewshot.support import Support, draw_batches, suffix_features, support_views
from tl_core.freezing.cuts import Cut
from tl_core.heads.classifier import average_views
from tl_core.heads.head import penalty_of
from tl_core.heads.shares import image_weights
from tl_core.heads.table import build_head, head_class
from tl_core.heads.temperature import best_temperatures, split_folds
from tl_core.recipes.choices import Priors
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.training.loop import TrainingDivergedError, fit, predict_logits, start_training
from tl_core.training.lr_finder import N_STEPS, RATES, lr_range_test
from tl_core.training.optimizers import FitOptions, build_optimizer
from tl_core.views.fixed import fixed_views

_QUERY_CHUNK = 256
_GROWTH = 0.5
"""Growth of the support images' loss above which steps are taken back, as a part of what guessing loses."""


@dataclass(frozen=True)
class Tuning:
    """Fine-tuning by one recipe on one cut; `cut.restore()` undoes what training did to the suffix."""

    cut: Cut
    recipe: FinetuneRecipe
    backbone: nn.Module
    n_features: int
    device: torch.device

    def run(self, episode: Episode) -> EpisodeResult:
        """Fine-tune on an episode's support images and score its query images."""
        started = time.perf_counter()
        support = episode.support_rows, episode.support_labels, episode.seed
        try:
            temperature = self.find_temperature(support)
            network, fell_back = self.train(support)
            logits = self._predict(network, episode.query_rows) / temperature
        finally:
            # Afterwards, not before the next episode: that one may cut elsewhere, and its frozen part must be whole.
            self.cut.restore()
        return score_episode(episode, logits, time.perf_counter() - started, fell_back)

    @property
    def is_stackable(self) -> bool:
        """True if one pass over its batches is all that an episode takes."""
        return self.recipe.temperature == "none"

    def run_stacked(self, episodes: Sequence[Episode]) -> Iterator[EpisodeResult]:
        """Fine-tune on several episodes side by side, with the results that `run` has for each."""
        started = time.perf_counter()
        starts = [self._start((e.support_rows, e.support_labels, e.seed)) for e in episodes]
        networks = StackedNetworks([network for network, _ in starts])
        fell_back = [False] * len(episodes)
        if self.recipe.steps > 0:
            steps = zip(*(batches for _, batches in starts), strict=True)
            stacked = ((torch.stack([x for x, _ in s]), torch.stack([y for _, y in s])) for s in steps)
            before = self._stacked_losses(networks, episodes)
            networks.train(stacked, self._options(float(self.recipe.max_lr)))
            after = self._stacked_losses(networks, episodes)
            n_classes = len(episodes[0].class_ids)
            fell_back = [_has_failed(*losses, n_classes) for losses in zip(before, after, strict=True)]
        views = [
            networks.predict(torch.stack([self.cut.activations.fixed(e.query_rows, view) for e in episodes]))
            for view in fixed_views(self.recipe.test_views)
        ]
        seconds = (time.perf_counter() - started) / len(episodes)
        for number, (episode, of_views) in enumerate(zip(episodes, torch.stack(views, dim=1), strict=True)):
            start = starts[number][0]
            logits = self._predict(start, episode.query_rows) if fell_back[number] else average_views(of_views)
            yield score_episode(episode, logits, seconds, fell_back[number])

    def train(self, support: Support) -> tuple[nn.Sequential, bool]:
        """Train suffix and head from the backbone's own weights.

        Returns:
            The network, and whether its steps were taken back: it is then the backbone and head of the start.
        """
        network, batches = self._start(support)
        if not self.cut.is_trained(self.recipe):
            return network, False
        before, after = self._loss(network, support), math.nan
        options = self._options(float(self.recipe.max_lr))
        with suppress(TrainingDivergedError):
            for _ in fit(start_training(network, options), lambda _: batches, options):
                after = self._loss(network, support)  # after one epoch, which is all
        if not _has_failed(before, after, int(support[1].max()) + 1):
            return network, False
        self.cut.restore()
        return self._start(support)[0], True

    def _loss(self, network: nn.Module, support: Support) -> float:
        """Loss on the support images as they are, in evaluation mode."""
        rows, labels, _ = support
        logits = predict_logits(network, torch.split(self.cut.activations.fixed(rows, view=0), _QUERY_CHUNK))
        return self._loss_of(logits, labels)

    def _loss_of(self, logits: Tensor, labels: NDArray[np.int64]) -> float:
        return float(F.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=self.recipe.label_smoothing))

    def _stacked_losses(self, networks: StackedNetworks, episodes: Sequence[Episode]) -> list[float]:
        """Loss of each episode on its support images, as `_loss`."""
        logits = networks.predict(torch.stack([self.cut.activations.fixed(e.support_rows, view=0) for e in episodes]))
        return [self._loss_of(of_one, e.support_labels) for of_one, e in zip(logits, episodes, strict=True)]

    def find_temperature(self, support: Support, priors: Priors = "balanced") -> float:
        """Find by cross-validation what the logits are divided by; 1 where the recipe asks for none."""
        rows, labels, seed = support
        targets = torch.from_numpy(labels)
        if self.recipe.temperature == "none" or not (folds := split_folds(targets)):
            return 1.0
        logits = torch.empty(len(rows), int(targets.max()) + 1)
        for kept, held in folds:
            network, _ = self.train((rows[kept], labels[kept], seed))
            shift = head_class(self.recipe.head).shifts(targets[kept], logits.shape[1], priors)
            logits[held] = self._predict(network, rows[held]) - shift
            self.cut.restore()
        every = torch.ones_like(targets, dtype=torch.bool)[None]
        return float(best_temperatures(logits[None], targets[None], image_weights(targets, every, priors)[0]))

    def suggest_max_lr(self, support: Support) -> float:
        """Run a learning-rate range test and return its suggestion."""
        tested = replace(self, recipe=replace(self.recipe, steps=N_STEPS))
        network, batches = tested._start(support)
        options = tested._options(RATES[0])
        optimizer = build_optimizer(network, options)
        statistics = options.batch_statistics
        return lr_range_test(network, batches, optimizer, RATES, N_STEPS, batch_statistics=statistics).suggestion

    def _start(self, support: Support) -> tuple[nn.Sequential, Iterator[tuple[Tensor, Tensor]]]:
        """Suffix and started head, and the batches to train them on."""
        (rows, labels, seed), recipe = support, self.recipe
        generator = torch.Generator().manual_seed(seed)
        views = support_views(self.cut.activations, rows, recipe.augment, generator)
        targets = torch.from_numpy(labels).to(self.device)
        head = build_head(recipe.head, self.n_features, int(labels.max()) + 1).to(self.device)
        features = suffix_features(self.cut.split.suffix, views)
        of_views, l2 = targets.repeat_interleave(views.shape[1]), penalty_of(recipe.l2, len(targets))
        head.start(features, of_views, l2, recipe.label_smoothing)
        return nn.Sequential(self.cut.split.suffix, head), draw_batches(views, targets, recipe.steps, generator)

    def _predict(self, network: nn.Module, rows: Indices) -> Tensor:
        """Logits (n, n_classes) of some rows over their views, on the CPU."""
        views = [
            predict_logits(network, torch.split(self.cut.activations.fixed(rows, view), _QUERY_CHUNK))
            for view in fixed_views(self.recipe.test_views)
        ]
        return average_views(torch.stack(views))

    def _options(self, max_lr: float) -> FitOptions:
        return FitOptions(
            epochs=1,
            steps_per_epoch=self.recipe.steps,
            max_lr=max_lr,
            optimizer=self.recipe.optimizer,
            weight_decay=self.recipe.weight_decay,
            label_smoothing=self.recipe.label_smoothing,
            batch_statistics=False,
            dtype=pick_dtype(self.recipe.precision, self.device, self.backbone),
        )


def _has_failed(before: float, after: float, n_classes: int) -> bool:
    """Return whether the support images' loss has grown too much."""
    return not after <= before + _GROWTH * math.log(n_classes)  # as NaN has
