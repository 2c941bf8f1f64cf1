"""Fine-tuning on a few labelled images, and the scoring of it on many episodes.

The head starts from the class prototypes, the mean features of the support images (Snell et al., 2017), and is
then trained together with the unfrozen part of the backbone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.activations import FrozenActivations
from tl_core.augment import fixed_views
from tl_core.backbones import BackboneSpec, n_features
from tl_core.classifier import Classifier, FewShotHead, Normalise
from tl_core.datasets import ImageDataset
from tl_core.episodes import Episode
from tl_core.freezing import SplitBackbone, split_backbone
from tl_core.recipes import FinetuneRecipe
from tl_core.splits import Indices
from tl_core.training import FitOptions, fit, predict_logits, start_training

MAX_BATCH = 128
_QUERY_CHUNK = 256


@dataclass(frozen=True)
class EpisodeResult:
    """What one episode gave.

    Attributes:
        labels, predictions: int64 (n_way * n_query,), as labels of the dataset, not of the episode.
        accuracy, loss: on the query images; the loss is the mean cross-entropy.
    """

    episode: Episode
    accuracy: float
    loss: float
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    seconds: float


@dataclass(frozen=True)
class _Cut:
    """A backbone cut at one depth, with what an episode needs to start afresh."""

    split: SplitBackbone
    activations: FrozenActivations
    suffix_state: dict[str, Tensor]


class Finetuner:
    """One backbone and one dataset, ready to be fine-tuned any number of times, always from the same weights."""

    def __init__(self, backbone: nn.Module, spec: BackboneSpec, dataset: ImageDataset, device: torch.device) -> None:
        self._backbone = backbone.to(device)
        self._spec = spec
        self._dataset = dataset
        self._device = device
        self._n_features = n_features(backbone.cpu(), spec)
        self._backbone.to(device)
        self._cuts: dict[int, _Cut] = {}

    def run_episodes(self, episodes: Iterable[Episode], recipe: FinetuneRecipe) -> Iterator[EpisodeResult]:
        """Fine-tune on each episode's support images and score its query images."""
        for episode in episodes:
            yield self._run_episode(episode, recipe)

    def fit_classifier(self, rows: Indices, recipe: FinetuneRecipe, seed: int) -> Classifier:
        """Fine-tune on all given rows of the dataset, whose labels are the classes. Ends this object's use."""
        labels = self._dataset.labels[rows]
        cut = self._cut(recipe)
        # As many passes over the images as in an episode.
        steps = recipe.steps * math.ceil(len(rows) / MAX_BATCH)
        network = self._train(cut, rows, labels, replace(recipe, steps=steps), seed)
        return Classifier(self._spec, self._backbone, network[1]).cpu().eval()

    def _run_episode(self, episode: Episode, recipe: FinetuneRecipe) -> EpisodeResult:
        started = time.perf_counter()
        cut = self._cut(recipe)
        try:
            network = self._train(cut, episode.support_rows, episode.support_labels, recipe, episode.seed)
            queries = cut.activations.fixed(episode.query_rows, view=0)
            logits = predict_logits(network, torch.split(queries, _QUERY_CHUNK))
        finally:
            # Afterwards, not before the next episode: that one may cut elsewhere, and its frozen part must be whole.
            cut.split.suffix.load_state_dict(cut.suffix_state)
        labels = torch.from_numpy(episode.query_labels)
        predictions = logits.argmax(1)
        class_ids = np.array(episode.class_ids, dtype=np.int64)
        return EpisodeResult(
            episode=episode,
            accuracy=float((predictions == labels).double().mean()),
            loss=float(F.cross_entropy(logits, labels)),
            labels=class_ids[episode.query_labels],
            predictions=class_ids[predictions.numpy()],
            seconds=time.perf_counter() - started,
        )

    def _cut(self, recipe: FinetuneRecipe) -> _Cut:
        split = split_backbone(self._backbone, recipe.freeze_depth)
        if split.n_frozen not in self._cuts:
            prefix = nn.Sequential(Normalise(self._spec), split.prefix)
            keep = split.n_frozen > 0 or split.n_groups == 0
            activations = FrozenActivations(prefix, self._dataset.images, self._device, keep)
            state = {name: value.detach().clone() for name, value in split.suffix.state_dict().items()}
            self._cuts[split.n_frozen] = _Cut(split, activations, state)
        return self._cuts[split.n_frozen]

    def _train(
        self, cut: _Cut, rows: Indices, labels: NDArray[np.int64], recipe: FinetuneRecipe, seed: int
    ) -> nn.Sequential:
        """Suffix and head, trained from the backbone's own weights on the given rows."""
        generator = torch.Generator().manual_seed(seed)
        views = _support_views(cut.activations, rows, recipe, generator)
        targets = torch.from_numpy(labels).to(self._device)
        head = FewShotHead(recipe.head, self._n_features, int(labels.max()) + 1).to(self._device)
        head.start_from_prototypes(_suffix_features(cut.split.suffix, views), targets.repeat_interleave(views.shape[1]))
        network = nn.Sequential(cut.split.suffix, head)
        options = FitOptions(
            epochs=1,
            steps_per_epoch=recipe.steps,
            max_lr=recipe.max_lr,
            optimizer=recipe.optimizer,
            weight_decay=recipe.weight_decay,
            label_smoothing=recipe.label_smoothing,
            batch_statistics=False,
        )
        if recipe.steps > 0:
            batches = _draw_batches(views, targets, recipe.steps, generator)
            for _ in fit(start_training(network, options), lambda _: batches, options):
                pass  # one epoch
        return network


def _support_views(
    activations: FrozenActivations, rows: Indices, recipe: FinetuneRecipe, generator: torch.Generator
) -> Tensor:
    """Activations of every view of every support image: (n_images, n_views, ...); view 0 is the image itself."""
    fixed = fixed_views(recipe.augment)
    if fixed is not None:
        return torch.stack([activations.fixed(rows, view) for view in fixed], dim=1)
    random = [activations.random(rows, recipe.augment, generator) for _ in range(recipe.n_views - 1)]
    return torch.stack([activations.fixed(rows, view=0), *random], dim=1)


def _draw_batches(
    views: Tensor, labels: Tensor, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One view of each image a step; more images than `MAX_BATCH` are walked through in random order."""
    n_images, n_views = views.shape[:2]
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < min(n_images, MAX_BATCH):
            order = torch.cat([order, torch.randperm(n_images, generator=generator)])
        rows, order = order[:MAX_BATCH], order[MAX_BATCH:]
        chosen = torch.randint(n_views, (len(rows),), generator=generator)
        yield views[rows, chosen], labels[rows]


@torch.no_grad()
def _suffix_features(suffix: nn.Module, views: Tensor) -> Tensor:
    """Features of every view: (n_images, n_views, ...) to (n_images * n_views, n_features)."""
    suffix.eval()
    return torch.cat([suffix(chunk) for chunk in torch.split(views.flatten(0, 1), _QUERY_CHUNK)])
