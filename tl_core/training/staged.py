"""Training on a whole labelled set, in stages: the head first, then as much of the backbone as the recipe says.

Each stage ends with the weights of the best validation accuracy, and the next one starts there. Test images are scored
by the very classifier that is exported, from their pixels: no other transform can come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.compute.devices import pick_dtype
from tl_core.data.dataset import ImageDataset
from tl_core.data.splits import ClassSplit, Indices
from tl_core.errors import InputError
from tl_core.freezing.activations import FrozenActivations
from tl_core.freezing.split import SplitBackbone, split_backbone
from tl_core.heads.classifier import Classifier, ClassifierDescription
from tl_core.heads.table import build_head
from tl_core.networks.backbones import BackboneSpec, check_size, n_features
from tl_core.networks.batch_norms import learns_statistics
from tl_core.networks.normalise import Normalise
from tl_core.recipes.train import Stage, TrainRecipe
from tl_core.training.loop import classification, predict_logits, start_training
from tl_core.training.optimizers import FitOptions
from tl_core.training.resumable import Epoch, Job, score_logits, train_epochs
from tl_core.views.fixed import fixed_views, has_random_views
from tl_core.views.mixing import mix_batch
from tl_core.views.sizes import view_sizes

KEPT_BYTES = 2**30
"""Activations of the frozen part are kept where those of all images fit into this; feature vectors always are."""

EVALUATION_BATCH = 128

_AHEAD = 1024  # images of an epoch whose views are computed before any of them is trained on


@dataclass(frozen=True)
class ImagePredictions:
    """Predictions of a classifier for some images.

    Attributes:
        rows: of the dataset, int64 (n,).
        labels, predictions: int64 (n,).
        probabilities: of the predicted classes, float32 (n,).
    """

    rows: Indices
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return float((self.labels == self.predictions).mean())


class Training:
    """Training of a backbone with a head on a labelled set: `epochs(k)` for stage k = 0, 1, ... in this order."""

    def __init__(
        self,
        backbone: nn.Module,
        spec: BackboneSpec,
        dataset: ImageDataset,
        split: ClassSplit,
        recipe: TrainRecipe,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        if len(split.train) < 2:
            raise InputError(f"{dataset.name} has {len(split.train)} training image(s); at least 2 are needed")
        self._spec = spec
        self._dataset = dataset
        self._split = split
        self._recipe = recipe
        self._seed = seed
        self._device = device
        self._batch_size = min(recipe.batch_size, len(split.train))
        for size in {size for stage in recipe.stages() for size in self._sizes(stage)} - {spec.image_size}:
            check_size(backbone, replace(spec, image_size=size))
        width = n_features(backbone, spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._head = build_head(recipe.head, width, len(dataset.class_names), recipe.dropout).to(device)
        self._learns_statistics = learns_statistics(recipe.norm_statistics, backbone)
        self._backbone = backbone.to(device).to(memory_format=torch.channels_last)
        self._objective = classification(recipe.label_smoothing)

    def epochs(
        self, stage: int, checkpoint: Path | None = None, on_batch: Callable[[int], object] = lambda _: None
    ) -> Iterator[Epoch]:
        """Train one stage and yield after each epoch, resuming from a checkpoint that exists; see `train_epochs`."""
        plan = self._recipe.stages()[stage]
        split = split_backbone(self._backbone, plan.freeze_depth)
        prefix = self._activations(split, plan)
        if stage == 0 and split.n_frozen == split.n_groups:
            self._head.standardise(prefix.fixed(self._split.train, view=0))
        network = nn.Sequential(split.suffix, self._head)
        options = self._options(plan, stage)
        job = Job(
            batches=lambda epoch: self._batches(prefix, plan, stage, epoch),
            objective=self._objective,
            validate=lambda trained: self._validate(trained, prefix, options.dtype),
            on_batch=on_batch,
            stage=stage + 1,
        )
        yield from train_epochs(start_training(network, options), job, options, checkpoint)

    def classifier(self) -> Classifier:
        """Classifier with the current weights: uint8 images to logits, in evaluation mode."""
        return Classifier(self._spec, self._backbone, self._head, self._recipe.test_views).to(self._device).eval()

    def description(self) -> ClassifierDescription:
        """Description from which the classifier is rebuilt."""
        names, recipe = self._dataset.class_names, self._recipe
        return ClassifierDescription(self._spec, names, recipe.head, recipe.test_views)

    def predict_test(self) -> ImagePredictions:
        """Test-set predictions (never used for model selection)."""
        return predict_rows(self.classifier(), self._dataset, self._split.test, self._device)

    def _validate(self, network: nn.Module, prefix: FrozenActivations, dtype: torch.dtype) -> tuple[float, float]:
        """Loss and accuracy on the validation split, without augmentation."""
        rows = self._split.val
        logits = predict_logits(network, _activations_of(prefix, rows), dtype)
        return score_logits(logits, torch.from_numpy(self._dataset.labels[rows]))

    def _batches(
        self, prefix: FrozenActivations, plan: Stage, stage: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([self._seed, stage, epoch])
        order = rng.permutation(self._split.train)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        recipe, n_classes = self._recipe, len(self._dataset.class_names)
        # Activations of a mixture are no mixture of activations, so a frozen part rules mixtures out.
        mixes = plan.trains_everything and (recipe.mixup > 0 or recipe.cutmix > 0)
        draw = _views_of(prefix, order, plan.augment, generator, self._sizes(plan)[epoch])
        for start in range(0, len(order) - self._batch_size + 1, self._batch_size):
            # Sorted: the memory map is read in one direction.
            places = start + np.argsort(order[start : start + self._batch_size])
            views = draw(places)
            targets = torch.from_numpy(self._dataset.labels[order[places]]).to(self._device)
            if mixes:
                targets = F.one_hot(targets, n_classes).to(views.dtype)
                views, targets = mix_batch(views, targets, recipe.mixup, recipe.cutmix, rng)
            yield views, targets

    def _sizes(self, plan: Stage) -> list[int]:
        """Side of the views in each epoch of a stage."""
        start_size = self._recipe.start_size if plan.trains_everything else 0
        return view_sizes(start_size, self._spec.image_size, plan.epochs)

    def _activations(self, split: SplitBackbone, plan: Stage) -> FrozenActivations:
        prefix = nn.Sequential(Normalise(self._spec), split.prefix).to(self._device)
        keep = split.n_frozen == split.n_groups
        if 0 < split.n_frozen < split.n_groups:
            side = self._spec.image_size
            with torch.inference_mode():
                one = prefix(torch.zeros(1, 3, side, side, device=self._device))
            n_views = 1 if has_random_views(plan.augment) else len(fixed_views(plan.augment))
            keep = one.nbytes * len(self._dataset.labels) * n_views <= KEPT_BYTES
        return FrozenActivations(prefix, self._dataset.images, self._device, keep)

    def _options(self, plan: Stage, stage: int) -> FitOptions:
        return FitOptions(
            epochs=plan.epochs,
            steps_per_epoch=len(self._split.train) // self._batch_size,
            max_lr=plan.max_lr,
            optimizer=plan.optimizer,
            weight_decay=self._recipe.weight_decay,
            schedule=plan.schedule,
            seed=int(np.random.default_rng([self._seed, stage]).integers(2**31)),
            dtype=pick_dtype(self._recipe.precision, self._device, self._backbone),
            batch_statistics=self._learns_statistics,
            patience=self._recipe.patience,
        )


def predict_rows(
    classifier: Classifier, dataset: ImageDataset, rows: Indices, device: torch.device
) -> ImagePredictions:
    """Predict some rows of a dataset from their pixels."""
    chunks = (torch.from_numpy(dataset.images[chunk]).to(device) for chunk in _chunks(rows))
    best = predict_logits(classifier, chunks).softmax(1).max(1)
    return ImagePredictions(rows, dataset.labels[rows], best.indices.numpy(), best.values.numpy())


def _views_of(
    prefix: FrozenActivations, order: Indices, augment: str, generator: torch.Generator, size: int
) -> Callable[[Indices], Tensor]:
    """Function from places in an epoch's order, asked for in turn, to activations of a view of each image there.

    Where the views are few and deterministic, each is computed once and kept.
    """
    if has_random_views(augment) or size != prefix.image_size:
        return lambda places: prefix.random(order[places], augment, generator, size)
    views = np.array(fixed_views(augment))
    drawn = views[torch.randint(len(views), (len(order),), generator=generator).numpy()]
    known = 0

    def draw(places: Indices) -> Tensor:
        nonlocal known
        while known <= places.max():
            # Many at once: kept activations are computed in chunks of a view, not for the few images of one batch.
            ahead = slice(known, known + _AHEAD)
            for view in views:
                prefix.compute(order[ahead][drawn[ahead] == view], int(view))
            known = ahead.stop
        parts = [(np.flatnonzero(drawn[places] == view), int(view)) for view in np.unique(drawn[places])]
        mixed = torch.cat([prefix.fixed(order[places[where]], view) for where, view in parts])
        return mixed[torch.from_numpy(np.argsort(np.concatenate([where for where, _ in parts]), kind="stable"))]

    return draw


def _activations_of(prefix: FrozenActivations, rows: Indices) -> Iterator[Tensor]:
    for chunk in _chunks(rows):
        # The caller may be in inference mode, but tensors made there cannot be used in training.
        with torch.inference_mode(mode=False):
            activations = prefix.fixed(chunk, view=0)
        yield activations


def _chunks(rows: Indices) -> Iterator[Indices]:
    yield from np.array_split(rows, max(1, -(-len(rows) // EVALUATION_BATCH)))
