"""Labelled images of one's own with the networks to choose from, and the groups that stay together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.configs.data import OwnData
from pipelines.configs.network import ComparedNetworks
from pipelines.inputs.names import BASELINES, is_run
from pipelines.inputs.networks import load_plain
from pipelines.inputs.provenance import check_unseen
from pipelines.store.find import find_run
from tl_core.crossvalidation.folds import Groups, group_images
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.errors import DataWarning, InputError
from tl_core.freezing.activations import FrozenActivations
from tl_core.networks.backbones import BackboneSpec
from tl_core.networks.normalise import Normalise
from tl_core.networks.weights_spec import EMBEDDED
from tl_core.recipes.choices import GroupedBy

UNEVEN = 3
"""Ratio of the largest to the smallest class above which the user is told what `priors` means."""

EMBEDDED_SIZES = (64, 128, 224)
"""Image sizes in pixels among which cross-validation chooses for the embedded weights."""
MOST_PIXELS = 10**8
"""Images at a size of their own are tried while all of them together have at most so many pixels."""


@dataclass(frozen=True)
class NetworkOnImages:
    """A frozen network, and the images at the size that it takes."""

    weights: str
    spec: BackboneSpec
    backbone: nn.Module
    dataset: ImageDataset

    @property
    def name(self) -> str:
        """Name that tells the networks of one choice apart."""
        return f"{self.weights} at {self.spec.image_size} px"

    def features(self, device: torch.device) -> Tensor:
        """Features of all images, float32 (n, d), on the CPU."""
        prefix = nn.Sequential(Normalise(self.spec), self.backbone)
        activations = FrozenActivations(prefix, self.dataset.images, device, keep=True)
        return activations.fixed(np.arange(len(self.dataset.labels)), view=0).cpu()


@dataclass(frozen=True)
class OwnImages:
    """Images of one's own, as each of the networks sees them.

    Attributes:
        networks: by name, in the order of the config.
        groups: images that stay in one fold.
        notices: sentences that the user should read before the result.
    """

    networks: Mapping[str, NetworkOnImages]
    groups: Groups
    notices: tuple[str, ...]

    @property
    def dataset(self) -> ImageDataset:
        """The images as the first network sees them; labels and names are the same for all."""
        return next(iter(self.networks.values())).dataset


def open_own_images(data: OwnData, network: ComparedNetworks, seed: int) -> OwnImages:
    """Load every network of the config with the images for it, and group the images that must not be parted.

    Raises:
        InputError: no such run, weights or data, a network that has seen some of the images, a single group, or a
            class in one group only.
    """
    networks = open_networks(data, network, seed)
    dataset = next(iter(networks.values())).dataset
    groups, alike = _group(dataset, data.group)
    weights = {one.weights for one in networks.values()}
    untaught = (
        "these weights know no other images, so that the classifier knows nothing but yours; give weights=embedded, "
        "a pretrain run, a file, or timm"
    )
    tried = [one.spec.image_size for one in networks.values() if one.weights == EMBEDDED]
    left_out = [f"{size}" for size in EMBEDDED_SIZES if tried and not network.image_size and size not in tried]
    sizes = (
        f"{' and '.join(left_out)} pixels a side were not tried, since there are {len(dataset.labels):,} images; "
        f"give image_size={left_out[-1]} to have it all the same"
        if left_out
        else ""
    )
    said = [untaught if weights <= set(BASELINES) else "", say_uneven(dataset), *alike, groups.notice, sizes]
    return OwnImages(networks, groups, tuple(sentence for sentence in said if sentence))


def open_networks(data: OwnData, config: ComparedNetworks, seed: int) -> dict[str, NetworkOnImages]:
    """Load every network of the config, and the images for each, by name.

    Raises:
        InputError: no such run, weights or data, or a network that has seen some of the images.
    """
    names = [part.strip() for part in config.weights.split(",") if part.strip()]
    if not names:
        raise InputError(f"expected weights separated by commas, got {config.weights!r}")
    opened = [network for name in names for network in _open_sizes(data, config, name, seed)]
    return {network.name: network for network in opened}


def _open_sizes(data: OwnData, config: ComparedNetworks, weights: str, seed: int) -> list[NetworkOnImages]:
    """Load one network, at every size to choose from."""
    if weights != EMBEDDED or config.image_size:
        return [_open(data, config, weights, config.image_size, seed)]
    smallest, *larger = EMBEDDED_SIZES
    opened = [_open(data, config, weights, smallest, seed)]
    n_images = len(opened[0].dataset.labels)
    return opened + [_open(data, config, weights, size, seed) for size in larger if n_images * size**2 <= MOST_PIXELS]


def _open(data: OwnData, config: ComparedNetworks, weights: str, image_size: int, seed: int) -> NetworkOnImages:
    if is_run(weights):
        weights = find_run(weights, "pretrain").info.run_id
    loaded = load_plain(weights, config.backbone, image_size, seed)
    backbone, spec = loaded.with_features(loaded.best_features(config.features))
    dataset = load_dataset(data.data, spec.image_size, unreadable=data.unreadable, class_level=_class_level(data))
    if is_run(weights):
        check_unseen(weights, "pretrain", dataset, np.arange(len(dataset.labels)))
    return NetworkOnImages(weights, spec, backbone, dataset)


def _class_level(data: OwnData) -> int:
    """Return the level of the class folders; where the folder above them is a group, they hold the images."""
    return -1 if data.group == "folder" and data.class_level == 0 else data.class_level


def _group(dataset: ImageDataset, grouped_by: GroupedBy) -> tuple[Groups, list[str]]:
    """Group the images that must not be parted, and say what was found out about near-duplicates.

    Raises:
        InputError: a single group, or a class in one group only.
    """
    own = _own_groups(dataset, grouped_by)
    # What is said of near-duplicates belongs on the page too, not only on the screen.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        alike = dataset.near_duplicates
    said = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
    return group_images(dataset.labels, dataset.class_names, alike, dataset.content_hashes, own), said


def _own_groups(dataset: ImageDataset, grouped_by: GroupedBy) -> Sequence[str] | None:
    """Return the user's group of each image, and a name of its own for one without; None where nothing is grouped."""
    given = dataset.groups
    if grouped_by == "folder":
        given = tuple(map(_folders_above, dataset.file_names, (dataset.class_names[label] for label in dataset.labels)))
        if not any(given):
            raise InputError("expected folders above the class folders for group=folder, got none")
    if not any(given):
        return None
    return [f"group {name}" if name else f"image {position}" for position, name in enumerate(given)]


def _folders_above(file: str, class_name: str) -> str:
    """Return the folders above the class folder, or above the last one where a class is called otherwise."""
    above, found, _ = f"/{file}".rpartition(f"/{class_name}/")
    return above[1:] if found else "/".join(file.split("/")[:-2])


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
