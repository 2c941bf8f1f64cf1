"""Supervised pretraining of a backbone on the source classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.compute.devices import pick_dtype
from tl_core.compute.distributed import ALONE, World, share_statistics, total
from tl_core.data.dataset import ImageDataset
from tl_core.data.splits import ClassSplit, Indices
from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec, check_size, n_features, with_features
from tl_core.networks.normalise import Normalise
from tl_core.networks.whitening import within_class_covariance
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.training.loop import predict_logits, start_training
from tl_core.training.lr_finder import N_STEPS, RATES, LrCurve, lr_range_test
from tl_core.training.optimizers import FitOptions, build_optimizer
from tl_core.training.resumable import Epoch, Job, score_logits, train_epochs
from tl_core.views.augment import augment_batch
from tl_core.views.fixed import to_float
from tl_core.views.mixing import mix_batch
from tl_core.views.sizes import view_sizes

EVALUATION_BATCH = 256
N_TURNS = 4


class Pretraining:
    """Pretraining of a backbone with a linear classifier on the source classes, epoch by epoch.

    Batches and views are functions of (seed, epoch), so a resumed run has the losses of an uninterrupted one. Several
    processes, each with its rank in `world`, train as one would on the same batches; only mixup and cutmix pair images
    within a process's share.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spec: BackboneSpec,
        dataset: ImageDataset,
        split: ClassSplit,
        recipe: PretrainRecipe,
        *,
        seed: int,
        world: World = ALONE,
    ) -> None:
        if len(split.train) < 2:
            raise InputError(f"{dataset.name} has {len(split.train)} training images; at least 2 are needed")
        self.backbone = backbone
        self._spec = spec
        self._dataset = dataset
        self._n_classes = len(dataset.class_names)
        self._split = split
        self._recipe = recipe
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            n_outputs = len(dataset.class_names) + (N_TURNS if recipe.rotation > 0 else 0)
            head = nn.Linear(n_features(backbone, spec), n_outputs)
        self._model = nn.Sequential(Normalise(spec), backbone, head).to(memory_format=torch.channels_last)
        self._world = world
        self._batch_size = min(recipe.batch_size, len(split.train))
        if self._batch_size % world.size:
            raise InputError(
                f"expected batch_size as a multiple of the number of processes, {world.size}, got {self._batch_size}"
            )
        self._sizes = view_sizes(recipe.start_size, spec.image_size, recipe.epochs)
        for size in set(self._sizes):
            check_size(backbone, replace(spec, image_size=size))

    def epochs(
        self,
        device: torch.device,
        checkpoint: Path | None = None,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> Iterator[Epoch]:
        """Train and yield after each epoch, resuming from a checkpoint that exists; see `train_epochs`."""
        options = self._options(device, self.settle_max_lr(device))
        model = self._model.to(device)
        state = start_training(share_statistics(model) if self._world.size > 1 else model, options)
        job = Job(
            batches=lambda epoch: self._batches(epoch, device),
            objective=self._objective,
            validate=lambda network: self._score(network, self._split.val, device, options.dtype),
            on_batch=on_batch,
        )
        yield from train_epochs(state, job, options, checkpoint)

    def settle_max_lr(self, device: torch.device) -> float:
        """Return the recipe's peak learning rate, after a range test has replaced `auto` by its suggestion.

        Processes that train together test side by side and settle on the geometric mean.
        """
        if self._recipe.max_lr == "auto":
            suggestion = self.lr_range_test(device, RATES, N_STEPS).suggestion
            shared = total(torch.tensor(math.log(suggestion), device=device)) / self._world.size
            self._recipe = replace(self._recipe, max_lr=math.exp(float(shared)))
        return float(self._recipe.max_lr)

    def lr_range_test(
        self, device: torch.device, rates: tuple[float, float], n_steps: int, *, batch_statistics: bool = True
    ) -> LrCurve:
        """Run the range test on this model, its batches and its optimiser; the model is left as it was."""
        options = self._options(device, max_lr=rates[0])
        batches = (batch for epoch in itertools.count() for batch in self._batches(epoch, device))
        model = self._model.to(device)
        optimizer = build_optimizer(model, options)
        objective = self._objective
        return lr_range_test(model, batches, optimizer, rates, n_steps, objective, batch_statistics=batch_statistics)

    def test_accuracy(self, device: torch.device) -> float:
        """Test accuracy (never used for model selection)."""
        dtype = pick_dtype(self._recipe.precision, device, self._model)
        return self._score(self._model, self._split.test, device, dtype)[1]

    def stage_covariance(self, device: torch.device) -> Tensor | None:
        """Covariance of the stages' features within classes, float32 (d, d), over the validation images.

        None where the network does not show its stages, or no class has two validation images.
        """
        if not hasattr(self.backbone, "forward_intermediates"):
            return None
        stages, spec = with_features(self.backbone.cpu(), self._spec, "stages")
        network, rows = nn.Sequential(Normalise(spec), stages).to(device), self._split.val
        chunks = np.array_split(rows, max(1, len(rows) // EVALUATION_BATCH))
        features = predict_logits(network, self._load_all(chunks, device))
        return within_class_covariance(features, torch.from_numpy(self._dataset.labels[rows]))

    def _score(self, model: nn.Module, rows: Indices, device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
        """Loss and accuracy of a model on the given rows, without augmentation."""
        chunks = np.array_split(rows, max(1, len(rows) // EVALUATION_BATCH))
        logits = predict_logits(model, self._load_all(chunks, device), dtype)
        return score_logits(logits[:, : self._n_classes], torch.from_numpy(self._dataset.labels[rows]))

    def _objective(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the classes and, if asked for, of the quarter turns (Gidaris et al., 2018)."""
        logits, turns = outputs[:, : self._n_classes], outputs[:, self._n_classes :]
        smoothing = self._recipe.label_smoothing
        if targets.ndim == 1:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing), (logits.argmax(1) == targets).sum()
        wanted = targets[:, : self._n_classes]
        loss = F.cross_entropy(logits, wanted, label_smoothing=smoothing)
        if self._recipe.rotation > 0:
            loss = loss + self._recipe.rotation * F.cross_entropy(turns, targets[:, self._n_classes :])
        return loss, (logits.argmax(1) == wanted.argmax(1)).sum()

    def _options(self, device: torch.device, max_lr: float) -> FitOptions:
        return FitOptions(
            epochs=self._recipe.epochs,
            steps_per_epoch=len(self._split.train) // self._batch_size,
            max_lr=max_lr,
            optimizer=self._recipe.optimizer,
            weight_decay=self._recipe.weight_decay,
            schedule=self._recipe.schedule,
            seed=self._seed,
            dtype=pick_dtype(self._recipe.precision, device, self._model),
        )

    def _batches(self, epoch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        recipe, size = self._recipe, self._sizes[min(epoch, len(self._sizes) - 1)]
        order = np.random.default_rng([self._seed, epoch]).permutation(self._split.train)
        rng = np.random.default_rng([self._seed, epoch, 1])
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        for start in range(0, len(order) - self._batch_size + 1, self._batch_size):
            batch = np.sort(order[start : start + self._batch_size])  # sorted: the memory map is read in one direction
            rows = batch[self._world.rank :: self._world.size]
            images = augment_batch(self._load(rows, device), recipe.augment, generator, size, self._world)
            targets = torch.from_numpy(self._dataset.labels[rows]).to(device)
            if recipe.rotation > 0 or recipe.mixup > 0 or recipe.cutmix > 0:
                targets = F.one_hot(targets, self._n_classes).to(images.dtype)
            if recipe.rotation > 0:
                of_all = rng.integers(N_TURNS, size=len(batch))
                turns = torch.from_numpy(of_all[self._world.rank :: self._world.size]).to(device)
                images = _turn(images, turns)
                targets = torch.cat([targets, F.one_hot(turns, N_TURNS).to(images.dtype)], dim=1)
            yield mix_batch(images, targets, recipe.mixup, recipe.cutmix, rng)

    def _load_all(self, chunks: Iterable[Indices], device: torch.device) -> Iterator[Tensor]:
        return (self._load(chunk, device) for chunk in chunks)

    def _load(self, rows: Indices, device: torch.device) -> Tensor:
        return to_float(torch.from_numpy(self._dataset.images[rows]).to(device, non_blocking=True))


def _turn(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate each of the square images (n, c, s, s) by its own number of quarter turns."""
    turned = images.clone()
    for turn in range(1, N_TURNS):
        turned[turns == turn] = torch.rot90(images[turns == turn], turn, dims=(2, 3))
    return turned
