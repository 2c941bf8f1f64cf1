"""What finetune, search and fit have in common: a few-image target, and a network to learn it with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tl_core.recipes.checks import check_range
from tl_core.recipes.choices import Device, Features, Unreadable
from tl_core.recipes.finetune import FinetuneRecipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tl_core.data.dataset import ImageDataset
    from tl_core.fewshot.finetuner import Finetuner
    from tl_core.fewshot.support import Support
    from tl_core.networks.backbones import BackboneSpec


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """A target, a network and a recipe."""

    target: str = "digits:target"
    """Data spec of the target."""
    backbone_run: str
    """Id of a pretrain run; a weights file, timm, timm:TAG or torchvision:ENUM.NAME; or one of the controls, random
    (untrained) and pixels (no network at all)."""
    backbone: str = "resnet10_small"
    """Architecture, where no pretrain run is named."""
    image_size: int = 0
    """Input side in pixels; 0 is that which the backbone was trained at, and 32 for the controls."""
    features: Features = "last"
    """What the head sees: the last stage, or the last four (stages), which often carries further from the source."""
    seed: int = 0
    """Seed of whatever is random: episodes, trials, batches, views, and the weights of an untrained network."""
    device: Device = "auto"
    """Where to compute."""
    unreadable: Unreadable = "refuse"
    """What to do about unreadable files: refuse the target, or skip them."""
    recipe: FinetuneRecipe = field(default_factory=FinetuneRecipe)

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**31 - 1)


@dataclass(frozen=True)
class Target:
    """An opened target: `finetuner` is the network on the dataset."""

    spec: BackboneSpec
    dataset: ImageDataset
    finetuner: Finetuner

    def settle_max_lr(self, supports: Iterable[Support], recipe: FinetuneRecipe) -> FinetuneRecipe:
        """The recipe with a learning rate that is a number; one that had to be found is a metric of the run."""
        import mlflow

        settled = self.finetuner.settle_max_lr(supports, recipe)
        if settled != recipe:
            mlflow.log_metric("max_lr", float(settled.max_lr))
        return settled


def open_target(config: TargetConfig, context: str = "target") -> Target:
    """Load the network and the data, and log the data with the active run, as what the context says.

    Raises:
        InputError: no such run, weights or data.
    """
    from pipelines.inputs.networks import load_network
    from pipelines.store.logging import log_dataset
    from tl_core.compute.devices import pick_device
    from tl_core.data.dataset import load_dataset
    from tl_core.fewshot.finetuner import Finetuner
    from tl_core.networks.backbones import with_features

    network, spec = load_network(config.backbone_run, config.backbone, config.image_size, config.seed)
    network, spec = with_features(network, spec, config.features)
    dataset = load_dataset(config.target, spec.image_size, unreadable=config.unreadable)
    log_dataset(dataset, context)
    return Target(spec, dataset, Finetuner(network, spec, dataset, pick_device(config.device)))
