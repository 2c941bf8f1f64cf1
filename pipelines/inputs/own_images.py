"""Labelled images of one's own with the networks to choose from, and the groups that stay together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.configs.data import OwnData
from pipelines.configs.network import ComparedNetworks
from pipelines.inputs.names import is_run
from pipelines.inputs.networks import load_network
from pipelines.inputs.provenance import check_unseen
from pipelines.store.find import find_run
from tl_core.crossvalidation.folds import Groups, group_images
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.errors import DataWarning, InputError
from tl_core.freezing.activations import FrozenActivations
from tl_core.networks.backbones import BackboneSpec, with_features
from tl_core.networks.normalise import Normalise
from tl_core.recipes.choices import Features, GroupedBy

UNEVEN = 3
"""Ratio of the largest to the smallest class above which the user is told what `priors` means."""


@dataclass(frozen=True)
class NetworkOnImages:
    """A frozen network, and the images at the size that it takes."""

    weights: str
    spec: BackboneSpec
    backbone: nn.Module
    dataset: ImageDataset

    def features(self, device: torch.device) -> Tensor:
        """Features of all images, float32 (n, d), on the CPU."""
        prefix = nn.Sequential(Normalise(self.spec), self.backbone)
        activations = FrozenActivations(prefix, self.dataset.images, device, keep=True)
        return activations.fixed(np.arange(len(self.dataset.labels)), view=0).cpu()


def open_networks(data: OwnData, config: ComparedNetworks, seed: int) -> dict[str, NetworkOnImages]:
    """Load every network of the config, and the images for each, by the name of its weights.

    Raises:
        InputError: no such run, weights or data, or a network that has seen some of the images.
    """
    names = [part.strip() for part in config.weights.split(",") if part.strip()]
    if not names:
        raise InputError(f"expected weights separated by commas, got {config.weights!r}")
    opened = [_open(data, config, name, seed) for name in names]
    return {network.weights: network for network in opened}


def _open(data: OwnData, config: ComparedNetworks, weights: str, seed: int) -> NetworkOnImages:
    if is_run(weights):
        weights = find_run(weights, "pretrain").info.run_id
    backbone, spec = load_network(weights, config.backbone, config.image_size, seed)
    backbone, spec = _with_features(backbone, spec, config.features)
    dataset = load_dataset(data.data, spec.image_size, unreadable=data.unreadable)
    if is_run(weights):
        check_unseen(weights, "pretrain", dataset, np.arange(len(dataset.labels)))
    return NetworkOnImages(weights, spec, backbone, dataset)


def _with_features(backbone: nn.Module, spec: BackboneSpec, features: Features) -> tuple[nn.Module, BackboneSpec]:
    shown = hasattr(backbone, "forward_intermediates")
    return with_features(backbone, spec, features if shown else "last")


def group_own_images(dataset: ImageDataset, grouped_by: GroupedBy) -> Groups:
    """Group the images that must not be parted.

    Raises:
        InputError: a single group, or a class in one group only.
    """
    own = _own_groups(dataset, grouped_by)
    # What is said of near-duplicates belongs on the page too, not only on the screen.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        alike = dataset.near_duplicates
    groups = group_images(dataset.labels, dataset.class_names, alike, dataset.content_hashes, own)
    said = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
    return replace(groups, notice="; ".join([*said, *([groups.notice] if groups.notice else [])]))


def _own_groups(dataset: ImageDataset, grouped_by: GroupedBy) -> Sequence[str] | None:
    """Return the user's group of each image, and a name of its own for one without; None where nothing is grouped."""
    given = dataset.groups
    if grouped_by == "folder":
        given = tuple("/".join(name.split("/")[:-2]) for name in dataset.file_names)
        if not any(given):
            raise InputError("expected folders above the class folders for group=folder, got none")
    if not any(given):
        return None
    return [f"group {name}" if name else f"image {position}" for position, name in enumerate(given)]


def say_uneven(dataset: ImageDataset) -> str:
    """Say that the classes have unequal numbers of images; empty where they are alike."""
    counts = dataset.class_counts()
    most, fewest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] <= UNEVEN * counts[fewest]:
        return ""
    return (
        f"{most} has {counts[most]:,} images and {fewest} {counts[fewest]:,}; with priors=balanced every class counts "
        "the same, with priors=data a class counts as often as it has images"
    )
