"""A few-image target, and a network to learn it with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pipelines.configs.data import PartOfTarget, TargetData
from pipelines.configs.network import FewShotNetwork
from pipelines.configs.where import SharedWhere, Where
from pipelines.inputs.networks import load_network
from pipelines.store.logging import log_dataset
from tl_core.compute.devices import pick_device
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.support import Support
from tl_core.networks.backbones import BackboneSpec
from tl_core.recipes.choices import Device
from tl_core.recipes.finetune import FinetuneRecipe


@dataclass(frozen=True)
class Target:
    """An opened target: `finetuner` is the network on the dataset."""

    spec: BackboneSpec
    dataset: ImageDataset
    finetuner: Finetuner

    def settle_max_lr(self, supports: Iterable[Support], recipe: FinetuneRecipe) -> FinetuneRecipe:
        """Return the recipe with a learning rate that is a number; one that had to be found is a metric of the run."""
        import mlflow

        settled = self.finetuner.settle_max_lr(supports, recipe)
        if settled != recipe:
            mlflow.log_metric("max_lr", float(settled.max_lr))
        return settled

    def used(self) -> dict[str, object]:
        """Return the values of the network's and the device's params that were chosen for the user."""
        spec = self.spec
        return {
            "backbone": spec.architecture,
            "image_size": spec.image_size,
            "device": self.finetuner.device.type,
        }


class _Config(Protocol):
    """Config of an entry point that learns a few-image target."""

    @property
    def data(self) -> TargetData | PartOfTarget: ...
    @property
    def network(self) -> FewShotNetwork: ...
    @property
    def seed(self) -> int: ...
    @property
    def where(self) -> Where | SharedWhere: ...


def open_target(config: _Config) -> Target:
    """Load the network and the target that a config names, and log the target with the active run.

    Raises:
        InputError: no such run, weights or data.
    """
    return open_network_on(config.data, config.network, config.seed, config.where.device)


def open_network_on(data: TargetData | PartOfTarget, network: FewShotNetwork, seed: int, device: Device) -> Target:
    """Load a network and a target, and log the target with the active run.

    Raises:
        InputError: no such run, weights or data.
    """
    backbone, spec = load_network(network.weights, network.backbone, network.image_size, seed, network.features)
    dataset = load_dataset(data.target, spec.image_size, unreadable=data.unreadable, class_level=data.class_level)
    log_dataset(dataset, "target")
    return Target(spec, dataset, Finetuner(backbone, spec, dataset, pick_device(device)))
