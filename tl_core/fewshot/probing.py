"""Solved heads on a frozen backbone, for many episodes at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tl_core.data.episodes import Episode
from tl_core.data.splits import Indices
from tl_core.fewshot.results import EpisodeResult, score_episode
from tl_core.fewshot.support import Support, support_views
from tl_core.freezing.cuts import Cut
from tl_core.heads.classifier import average_views
from tl_core.heads.head import SolvedHead, penalty_of
from tl_core.heads.table import head_class
from tl_core.heads.temperature import solved_temperatures
from tl_core.recipes.choices import Priors
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.views.fixed import fixed_views


@dataclass(frozen=True)
class Probing:
    """Probing by one recipe on a cut that freezes the whole backbone; the recipe's head is solved."""

    cut: Cut
    recipe: FinetuneRecipe
    device: torch.device

    def run(self, episodes: Sequence[Episode]) -> Iterator[EpisodeResult]:
        """Solve several episodes of the same shape at once and score their queries."""
        started = time.perf_counter()
        support = torch.stack([self._support(episode.support_rows, episode.seed) for episode in episodes])
        labels = torch.stack([torch.from_numpy(episode.support_labels) for episode in episodes]).to(self.device)
        query_views = [
            torch.stack([self.cut.activations.fixed(episode.query_rows, view) for episode in episodes])
            for view in fixed_views(self.recipe.test_views)
        ]
        logits = self._logits(support, labels, torch.stack(query_views, dim=2)).cpu()
        seconds = (time.perf_counter() - started) / len(episodes)
        for episode, of_one in zip(episodes, logits, strict=True):
            yield score_episode(episode, of_one, seconds)

    def find_temperature(self, support: Support, priors: Priors = "balanced") -> float:
        """Find by cross-validation what the logits are divided by; 1 where the recipe asks for none."""
        if self.recipe.temperature == "none":
            return 1.0
        rows, labels, seed = support
        targets = torch.from_numpy(labels).to(self.device)
        return float(self._temperatures(self._support(rows, seed)[None], targets[None], priors))

    def _support(self, rows: Indices, seed: int) -> Tensor:
        return support_views(self.cut.activations, rows, self.recipe.augment, torch.Generator().manual_seed(seed))

    def _logits(self, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Logits (b, m, n_classes) of queries (b, m, n_views, d), from every view of support (b, n, n_views, d)."""
        recipe, of_views = self.recipe, labels.repeat_interleave(support.shape[2], dim=1)
        l2 = penalty_of(recipe.l2, support.shape[1])
        logits = self._head.solve_episodes(
            support.flatten(1, 2), of_views, queries.flatten(1, 2), l2, recipe.label_smoothing
        )
        averaged = average_views(logits.unflatten(1, queries.shape[1:3]).movedim(2, 0))
        if recipe.temperature == "cv":
            averaged = averaged / self._temperatures(support, labels)[:, None, None]
        return averaged

    def _temperatures(self, support: Tensor, labels: Tensor, priors: Priors = "balanced") -> Tensor:
        recipe = self.recipe
        return solved_temperatures(self._head, support, labels, recipe.l2, recipe.label_smoothing, priors)

    @property
    def _head(self) -> type[SolvedHead]:
        head = head_class(self.recipe.head)
        assert issubclass(head, SolvedHead)
        return head
