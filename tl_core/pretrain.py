"""Supervised pretraining of a backbone on the source classes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tl_core.augment import augment_batch, to_float
from tl_core.backbones import BackboneSpec, n_features
from tl_core.classifier import Normalise
from tl_core.datasets import ImageDataset
from tl_core.devices import pick_dtype
from tl_core.errors import InputError
from tl_core.lr_finder import LrCurve, lr_range_test
from tl_core.recipes import PretrainRecipe
from tl_core.splits import ClassSplit, Indices
from tl_core.training import EpochMetrics, FitOptions, build_optimizer, fit, predict_logits, start_training

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class PretrainEpoch:
    """One epoch's training metrics with the validation accuracy after it."""

    training: EpochMetrics
    val_accuracy: float


class Pretraining:
    """A backbone with a linear classifier on the source, trained epoch by epoch.

    `epochs()` may be left and, after `resume`, entered again: batches and views depend on (seed, epoch) alone,
    so the losses continue as if nothing had happened.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spec: BackboneSpec,
        dataset: ImageDataset,
        split: ClassSplit,
        recipe: PretrainRecipe,
        seed: int,
    ) -> None:
        if len(split.train) < 2:
            raise InputError(f"{dataset.name} has {len(split.train)} training images; at least 2 are needed")
        self.backbone = backbone
        self._dataset = dataset
        self._split = split
        self._recipe = recipe
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = nn.Linear(n_features(backbone, spec), len(dataset.class_names))
        self._model = nn.Sequential(Normalise(spec), backbone, head).to(memory_format=torch.channels_last)
        self._batch_size = min(recipe.batch_size, len(split.train))

    def epochs(self, device: torch.device, checkpoint: Path | None = None) -> Iterator[PretrainEpoch]:
        """Train, yielding after each epoch; at the end the model has the weights that were best on validation.

        With a `checkpoint` path, the state is saved after each epoch and continued from if the file is there.
        """
        options = self._options(device)
        state = start_training(self._model.to(device), options)
        if checkpoint is not None and checkpoint.is_file():
            state.load(checkpoint)
        for metrics in fit(state, lambda epoch: self._batches(epoch, device), options):
            val_accuracy = self.accuracy(self._split.val, device, options.dtype)
            state.keep_if_best(val_accuracy)
            if checkpoint is not None:
                state.save(checkpoint)
            yield PretrainEpoch(metrics, val_accuracy)
        self._model.load_state_dict(state.best_weights)

    def lr_range_test(self, device: torch.device, rates: tuple[float, float], n_steps: int) -> LrCurve:
        """The range test on this model, its batches and its optimiser; leaves the model as it was."""
        options = replace(self._options(device), max_lr=rates[0])
        batches = (batch for epoch in itertools.count() for batch in self._batches(epoch, device))
        model = self._model.to(device)
        return lr_range_test(model, batches, build_optimizer(model, options), rates, n_steps)

    def accuracy(self, rows: Indices, device: torch.device, dtype: torch.dtype) -> float:
        """Share of the given rows that the model classifies right, without augmentation."""
        chunks = np.array_split(rows, max(1, len(rows) // EVALUATION_BATCH))
        logits = predict_logits(self._model, (self._load(chunk, device) for chunk in chunks), dtype)
        return float((logits.argmax(1).numpy() == self._dataset.labels[rows]).mean())

    def test_accuracy(self, device: torch.device) -> float:
        """Accuracy on the test part: to be asked once, at the end, of the weights chosen by validation."""
        return self.accuracy(self._split.test, device, pick_dtype(self._recipe.precision, device))

    def _options(self, device: torch.device) -> FitOptions:
        return FitOptions(
            epochs=self._recipe.epochs,
            steps_per_epoch=len(self._split.train) // self._batch_size,
            max_lr=self._recipe.max_lr,
            optimizer=self._recipe.optimizer,
            weight_decay=self._recipe.weight_decay,
            label_smoothing=self._recipe.label_smoothing,
            dtype=pick_dtype(self._recipe.precision, device),
        )

    def _batches(self, epoch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.random.default_rng([self._seed, epoch]).permutation(self._split.train)
        generator = torch.Generator().manual_seed(int(np.random.default_rng([self._seed, epoch, 1]).integers(2**63)))
        for start in range(0, len(order) - self._batch_size + 1, self._batch_size):
            rows = np.sort(order[start : start + self._batch_size])  # sorted: the memory map is read in one direction
            images = augment_batch(self._load(rows, device), self._recipe.augment, generator)
            yield images, torch.from_numpy(self._dataset.labels[rows]).to(device)

    def _load(self, rows: Indices, device: torch.device) -> Tensor:
        return to_float(torch.from_numpy(self._dataset.images[rows]).to(device, non_blocking=True))
