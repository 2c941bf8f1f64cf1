"""Learning-rate range test: which rate should pretraining peak at?

    mlflow run . -e lr_find -P source=mini-imagenet/train.tar -P backbone=resnet10 -P image_size=64

The learning-rate range test: the rate grows from step to step until the loss explodes; the suggestion is where the
loss fell most steeply.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import get_args

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import Source
from pipelines.configs.network import Network
from pipelines.configs.where import Where
from tl_core.recipes.checks import check_choice, check_seed
from tl_core.recipes.choices import Optimizer, Precision
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.recipes.train import NormStatistics


@dataclass(frozen=True, kw_only=True)
class RangeTestRecipe:
    """Hyper-parameters of pretraining that a range test depends on."""

    batch_size: int = 128
    """Images per step."""
    optimizer: Optimizer = "sgd"
    """Optimiser; sgd uses Nesterov momentum 0.9."""
    weight_decay: float = 5e-4
    """Weight decay, on weights with two or more dimensions only."""
    label_smoothing: float = 0.1
    """Label smoothing of the cross-entropy."""
    augment: str = "crop+flip"
    """Random views: none, or flip, dihedral, crop, colour joined by +."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is none."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is none. With mixup too, each batch draws one of the two."""
    rotation: float = 0.0
    """Weight of a second task, to predict by which quarter turn each image was turned; 0 is none."""
    precision: Precision = "auto"
    """Number format of the training: bfloat16 autocast, float32, or auto, which takes the faster one for the device."""
    norm_statistics: NormStatistics = "learn"
    """Statistics of the batch norms: learn, as `pretrain` does, or keep or auto, as `train` does from weights."""


@dataclass(frozen=True, kw_only=True)
class LrFindConfig:
    """Learning-rate range test for pretraining."""

    data: Source = field(default_factory=Source)
    network: Network = field(default_factory=Network)
    seed: int = 0
    """Seed of the split, the initial weights, the batches and the views."""
    recipe: RangeTestRecipe = field(default_factory=RangeTestRecipe)
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_choice("norm_statistics", self.recipe.norm_statistics, get_args(NormStatistics))


def run(config: LrFindConfig) -> str:
    """Test and log; returns the run's id."""
    import mlflow

    from pipelines.inputs.names import run_name
    from pipelines.inputs.networks import load_network
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.results.figures import draw_lr_curve
    from pipelines.store.logging import log_dataset, log_drawing, log_series
    from pipelines.store.runs import rename_run, tracked_run
    from tl_core.compute.devices import pick_device
    from tl_core.data.dataset import load_dataset
    from tl_core.data.splits import split_within_classes
    from tl_core.networks.batch_norms import learns_statistics
    from tl_core.training.lr_finder import N_STEPS, RATES
    from tl_core.training.pretraining import Pretraining

    name = run_name("lr_find", config.data.source, config.network.weights, config.network.backbone)
    with tracked_run("lr_find", config, name) as run_id:
        config = with_run_ids(config, weights="pretrain")
        network = config.network
        rename_run(name, run_name("lr_find", config.data.source, network.weights, network.backbone))
        backbone, spec = load_network(network.weights, network.backbone, network.image_size, config.seed)
        device = pick_device(config.where.device)
        dataset = load_dataset(
            config.data.source, spec.image_size, unreadable=config.data.unreadable, class_level=config.data.class_level
        )
        log_dataset(dataset, "source")
        split = split_within_classes(dataset, 0.1, 0.1, config.seed)
        settings = asdict(config.recipe)
        learns = learns_statistics(settings.pop("norm_statistics"), backbone)
        training = Pretraining(backbone, spec, dataset, split, PretrainRecipe(**settings), seed=config.seed)
        curve = training.lr_range_test(device, RATES, N_STEPS, batch_statistics=learns)
        log_series({"lr": curve.rates, "loss": curve.losses})
        mlflow.log_metric("suggestion", curve.suggestion)
        log_drawing(lambda: draw_lr_curve(curve), "lr_curve.png")
        print(f"lr_find {run_id}: the loss falls most steeply at max_lr={curve.suggestion:.2e}")
    return run_id


if __name__ == "__main__":
    run_command_line(LrFindConfig, run)
