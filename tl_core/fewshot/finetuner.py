"""Fine-tuning on a few labelled images, and the scoring of it on many episodes.

The head starts from the support images' features, by class prototypes (Snell et al., 2017) or logistic regression,
and is then trained together with the unfrozen part of the backbone (linear probing, then fine-tuning: Kumar et al.,
2022). Where nothing else is trained, the logistic regression is the answer, and many episodes are solved at once.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_core.compute.devices import pick_dtype
from tl_core.data.dataset import ImageDataset
from tl_core.data.episodes import Episode
from tl_core.data.splits import Indices
from tl_core.errors import InputError
from tl_core.fewshot.results import EpisodeResult, score_episode
from tl_core.fewshot.stacked import StackedNetworks
from tl_core.fewshot.support import (
    MAX_BATCH,
    count_views,
    draw_batches,
    pseudo_episodes,
    suffix_features,
    support_views,
)
from tl_core.freezing.cuts import Cut, Cuts
from tl_core.heads.classifier import Classifier
from tl_core.heads.few_shot import FewShotHead, probe_episodes, propagate_labels
from tl_core.heads.prototypes import average_views
from tl_core.heads.temperature import best_temperatures, probe_temperatures, split_folds
from tl_core.networks.backbones import BackboneSpec, n_features
from tl_core.recipes.choices import HeadStart
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.training.loop import Objective, fit, predict_logits, start_training
from tl_core.training.lr_finder import N_STEPS, RATES, lr_range_test
from tl_core.training.optimizers import FitOptions, build_optimizer
from tl_core.views.fixed import fixed_views, has_random_views

_QUERY_CHUNK = 256
_GROUP, _SMALL_GROUP = 128, 16
"""Episodes whose images go through the frozen part together; linear heads are solved for as many at once. Fewer where
each image has many views: a group's features are all in memory."""
_TOGETHER = {"cuda": 16}
"""Episodes that are fine-tuned at once on an accelerator; a CPU gains nothing by it (docs/experiments.md)."""


Support = tuple[Indices, NDArray[np.int64], int]
"""Rows of the dataset, their labels from 0 on, and the seed of whatever is random about them."""


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
        cut = self._cuts.at(recipe)
        together = together or _TOGETHER.get(self.device.type, 1)
        remaining = iter(episodes)
        while group := list(itertools.islice(remaining, max(_SMALL_GROUP, _GROUP // count_views(recipe)))):
            self.compute(group, recipe)
            if cut.is_probed(recipe):
                yield from self._probe(cut, group, recipe)
            elif together > 1 and _is_stackable(recipe):
                for start in range(0, len(group), together):
                    yield from self._run_stacked(cut, group[start : start + together], recipe)
            else:
                for episode in group:
                    yield self._run_episode(cut, episode, recipe)

    def is_probing(self, recipe: FinetuneRecipe) -> bool:
        """Whether this recipe fits a linear head alone: many episodes are then solved at once, in any case."""
        return self._cuts.at(recipe).is_probed(recipe)

    def share(self, recipe: FinetuneRecipe, folder: Path) -> None:
        """Keep this recipe's activations in files of a folder from now on, where other processes can read them."""
        self._cuts.at(recipe).activations.share(folder)

    def compute(self, episodes: Iterable[Episode], recipe: FinetuneRecipe) -> dict[int, NDArray[np.float32]]:
        """Compute what the frozen part says of these episodes' images; gives all that is shared, by view."""
        cut, episodes = self._cuts.at(recipe), list(episodes)
        for view in fixed_views(recipe.augment) if not has_random_views(recipe.augment) else [0]:
            cut.activations.compute(np.concatenate([e.support_rows for e in episodes]), view)
        for view in fixed_views(recipe.test_views):
            cut.activations.compute(np.concatenate([e.query_rows for e in episodes]), view)
        return cut.activations.shared()

    def adopt(self, recipe: FinetuneRecipe, views: Mapping[int, NDArray[np.float32]]) -> None:
        """Read what another process's `compute` gave, instead of computing it again."""
        self._cuts.at(recipe).activations.adopt(views)

    def fit_classifier(self, rows: Indices, recipe: FinetuneRecipe, seed: int) -> Classifier:
        """Fine-tune on all given rows of the dataset, whose labels are the classes. Ends this object's use."""
        if recipe.transductive != "none":
            raise InputError(f"transductive is {recipe.transductive}; a classifier judges images one by one: give none")
        cut = self._cuts.at(recipe)
        # As many passes over the images as in an episode.
        steps = recipe.steps * math.ceil(len(rows) / MAX_BATCH)
        recipe, labels = replace(recipe, steps=steps), self.dataset.labels[rows]
        temperature = self._temperature(cut, rows, labels, recipe, seed)
        network = self._train(cut, rows, labels, recipe, seed)
        return Classifier(self.spec, self.backbone, network[1], recipe.test_views, temperature).cpu().eval()

    def features_around(
        self, episode: Episode, recipe: FinetuneRecipe
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Features of an episode's support and query images, in this order, before and after fine-tuning.

        Returns:
            Both float32 (n_support + n_query, n_features); the second is None where no part of the backbone is trained.
        """
        cut = self._cuts.at(recipe)
        views = cut.activations.fixed(np.concatenate([episode.support_rows, episode.query_rows]), view=0)[:, None]
        before = suffix_features(cut.split.suffix, views).cpu().numpy()
        if recipe.steps == 0 or cut.is_frozen:
            return before, None
        try:
            self._train(cut, episode.support_rows, episode.support_labels, recipe, episode.seed)
            return before, suffix_features(cut.split.suffix, views).cpu().numpy()
        finally:
            cut.restore()

    def settle_max_lr(self, supports: Iterable[Support], recipe: FinetuneRecipe) -> FinetuneRecipe:
        """The recipe itself, or where its `max_lr` is `auto` with what range tests on some support sets say.

        Args:
            supports: of each test the rows, their labels from 0 on, and a seed; the suggestions' geometric mean counts.
        """
        if recipe.max_lr != "auto":
            return recipe
        cut = self._cuts.at(recipe)
        if not cut.is_trained(recipe):
            return replace(recipe, max_lr=FinetuneRecipe().max_lr)  # nothing is trained
        longer = replace(recipe, steps=N_STEPS)
        logs = []
        for rows, labels, seed in supports:
            network, batches = self._start(cut, rows, labels, longer, seed)
            trained, objective = _trained_by(network, recipe)
            options = self._options(longer, RATES[0])
            optimizer = build_optimizer(trained, options)
            statistics = options.batch_statistics
            curve = lr_range_test(trained, batches, optimizer, RATES, N_STEPS, objective, batch_statistics=statistics)
            logs.append(math.log(curve.suggestion))
        return replace(recipe, max_lr=math.exp(sum(logs) / len(logs)))

    def _run_episode(self, cut: Cut, episode: Episode, recipe: FinetuneRecipe) -> EpisodeResult:
        started = time.perf_counter()
        try:
            support = episode.support_rows, episode.support_labels
            temperature = self._temperature(cut, *support, recipe, episode.seed)
            network = self._train(cut, *support, recipe, episode.seed)
            logits = self._predict(cut, network, episode.query_rows, recipe) / temperature
        finally:
            # Afterwards, not before the next episode: that one may cut elsewhere, and its frozen part must be whole.
            cut.restore()
        return score_episode(episode, logits, time.perf_counter() - started)

    def _predict(self, cut: Cut, network: nn.Module, rows: Indices, recipe: FinetuneRecipe) -> Tensor:
        """Logits (n, n_classes) of some rows over their views, on the CPU."""
        of_batch = _takes_batch_statistics(recipe)
        chunk = len(rows) if of_batch else _QUERY_CHUNK
        views = [
            predict_logits(network, torch.split(cut.activations.fixed(rows, view), chunk), batch_statistics=of_batch)
            for view in fixed_views(recipe.test_views)
        ]
        return average_views(torch.stack(views))

    def _temperature(
        self, cut: Cut, rows: Indices, labels: NDArray[np.int64], recipe: FinetuneRecipe, seed: int
    ) -> float:
        """What the logits are divided by: 1, or what suits support images that are judged without having been seen."""
        if recipe.temperature == "none":
            return 1.0
        targets = torch.from_numpy(labels)
        if cut.is_probed(recipe):
            views = support_views(cut.activations, rows, recipe, torch.Generator().manual_seed(seed))
            return float(probe_temperatures(views[None], targets.to(self.device)[None], *_head_settings(recipe)))
        if not (folds := split_folds(targets)):
            return 1.0
        judged = torch.empty(len(rows), int(targets.max()) + 1)
        for kept, held in folds:
            network = self._train(cut, rows[kept], labels[kept], recipe, seed)
            judged[held] = self._predict(cut, network, rows[held], recipe)
            cut.restore()
        return float(best_temperatures(judged[None], targets[None]))

    def _run_stacked(self, cut: Cut, episodes: list[Episode], recipe: FinetuneRecipe) -> Iterator[EpisodeResult]:
        """What `_run_episode` gives, for several episodes side by side."""
        started = time.perf_counter()
        starts = [self._start(cut, e.support_rows, e.support_labels, recipe, e.seed) for e in episodes]
        networks = StackedNetworks([network for network, _ in starts])
        if recipe.steps > 0:
            steps = zip(*(batches for _, batches in starts), strict=True)
            stacked = ((torch.stack([x for x, _ in s]), torch.stack([y for _, y in s])) for s in steps)
            networks.train(stacked, self._options(recipe, float(recipe.max_lr)))
        views = [
            networks.predict(torch.stack([cut.activations.fixed(e.query_rows, view) for e in episodes]))
            for view in fixed_views(recipe.test_views)
        ]
        seconds = (time.perf_counter() - started) / len(episodes)
        for episode, of_views in zip(episodes, torch.stack(views, dim=1), strict=True):
            yield score_episode(episode, average_views(of_views), seconds)

    def _probe(self, cut: Cut, episodes: list[Episode], recipe: FinetuneRecipe) -> Iterator[EpisodeResult]:
        """What `_run_episode` gives, for several episodes at once, where only a linear head is fitted."""
        started = time.perf_counter()
        generators = [torch.Generator().manual_seed(episode.seed) for episode in episodes]
        views = torch.stack(
            [
                support_views(cut.activations, episode.support_rows, recipe, generator)
                for episode, generator in zip(episodes, generators, strict=True)
            ]
        )
        labels = torch.stack([torch.from_numpy(episode.support_labels) for episode in episodes]).to(self.device)
        query_views = [
            torch.stack([cut.activations.fixed(episode.query_rows, view) for episode in episodes])
            for view in fixed_views(recipe.test_views)
        ]
        logits = self._judge(views, labels, torch.stack(query_views, dim=2), recipe).cpu()
        seconds = (time.perf_counter() - started) / len(episodes)
        for episode, of_one in zip(episodes, logits, strict=True):
            yield score_episode(episode, of_one, seconds)

    def _judge(self, support: Tensor, labels: Tensor, queries: Tensor, recipe: FinetuneRecipe) -> Tensor:
        """Logits (b, m, n_classes) of queries (b, m, n_views, d), from every view of support (b, n, n_views, d)."""
        if recipe.transductive == "label_propagation":
            return propagate_labels(support.mean(2), labels, queries.mean(2))
        head = _head_settings(recipe)
        of_views = labels.repeat_interleave(support.shape[2], dim=1)
        logits = probe_episodes(support.flatten(1, 2), of_views, queries.flatten(1, 2), *head)
        averaged = average_views(logits.unflatten(1, queries.shape[1:3]).movedim(2, 0))
        if recipe.temperature == "cv":
            averaged = averaged / probe_temperatures(support, labels, *head)[:, None, None]
        return averaged

    def _train(
        self, cut: Cut, rows: Indices, labels: NDArray[np.int64], recipe: FinetuneRecipe, seed: int
    ) -> nn.Sequential:
        """Suffix and head, trained from the backbone's own weights on the given rows."""
        network, batches = self._start(cut, rows, labels, recipe, seed)
        if cut.is_trained(recipe):
            options = self._options(recipe, float(recipe.max_lr))
            trained, objective = _trained_by(network, recipe)
            for _ in fit(start_training(trained, options), lambda _: batches, options, objective):
                pass  # one epoch
            if recipe.objective == "pseudo_episodes":
                network, _ = self._start(cut, rows, labels, recipe, seed)  # a head for the features as they are now
        return network

    def _start(
        self, cut: Cut, rows: Indices, labels: NDArray[np.int64], recipe: FinetuneRecipe, seed: int
    ) -> tuple[nn.Sequential, Iterator[tuple[Tensor, Tensor]]]:
        """Suffix and started head, and the batches to train them on."""
        generator = torch.Generator().manual_seed(seed)
        views = support_views(cut.activations, rows, recipe, generator)
        targets = torch.from_numpy(labels).to(self.device)
        head = FewShotHead(recipe.head, self._n_features, int(labels.max()) + 1).to(self.device)
        head.start(
            suffix_features(cut.split.suffix, views, batch_statistics=_takes_batch_statistics(recipe)),
            targets.repeat_interleave(views.shape[1]),
            *_head_settings(recipe),
        )
        paired = recipe.objective == "pseudo_episodes"
        batches = draw_batches(views, targets, recipe.steps, generator, paired=paired)
        return nn.Sequential(cut.split.suffix, head), batches

    def _options(self, recipe: FinetuneRecipe, max_lr: float) -> FitOptions:
        return FitOptions(
            epochs=1,
            steps_per_epoch=recipe.steps,
            max_lr=max_lr,
            optimizer=recipe.optimizer,
            weight_decay=recipe.weight_decay,
            label_smoothing=recipe.label_smoothing,
            batch_statistics=_takes_batch_statistics(recipe),
            dtype=pick_dtype(recipe.precision, self.device, self.backbone),
        )


def _trained_by(network: nn.Sequential, recipe: FinetuneRecipe) -> tuple[nn.Module, Objective | None]:
    """Which part of suffix and head is trained, and by what; None is the cross-entropy of the logits."""
    if recipe.objective == "pseudo_episodes":
        head = network[1]
        assert isinstance(head, FewShotHead)
        return network[0], pseudo_episodes(len(head.bias))
    return network, None


def _takes_batch_statistics(recipe: FinetuneRecipe) -> bool:
    return recipe.transductive == "query_statistics"


def _is_stackable(recipe: FinetuneRecipe) -> bool:
    """Whether one pass over batches of one kind is all that an episode takes."""
    return recipe.objective == "cross_entropy" and recipe.temperature == recipe.transductive == "none"


def _head_settings(recipe: FinetuneRecipe) -> tuple[HeadStart, float, float]:
    """What the start, or the solution, of a head depends on beside the features."""
    return recipe.head_start, recipe.l2, recipe.label_smoothing
