"""Which learning rate should pretraining peak at?

    mlflow run . -e lr_find -P source=mini-imagenet/train.tar -P backbone=resnet10 -P image_size=64

The learning-rate range test: the rate grows from step to step until the loss explodes; the suggestion is where the
loss fell most steeply.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.command_line.command import run_command_line
from tl_core.recipes.checks import check_range
from tl_core.recipes.choices import Device, Unreadable
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.recipes.train import NormStatistics


@dataclass(frozen=True, kw_only=True)
class LrFindConfig:
    """Which learning rate should pretraining peak at? The learning-rate range test."""

    source: str = "digits:source"
    """Data spec of the source."""
    backbone: str = "resnet10_small"
    """Any architecture name of timm, or resnet10, resnet10_small."""
    image_size: int = 32
    """Side of the square input in pixels."""
    weights: str = ""
    """Weights to start from: a file, timm, timm:TAG or torchvision:ENUM.NAME; empty starts from random ones."""
    min_lr: float = 1e-4
    """First learning rate."""
    end_lr: float = 10.0
    """Last learning rate, if the loss does not explode before."""
    n_steps: int = 100
    """Steps between them."""
    seed: int = 0
    """Seed of the split, the initial weights, the batches and the views."""
    device: Device = "auto"
    """Where to compute."""
    unreadable: Unreadable = "refuse"
    """What to do about unreadable files: refuse the source, or skip them."""
    norm_statistics: NormStatistics = "learn"
    """Of the batch norms: learn, as `pretrain` does, or keep or auto, as `train` does from weights."""
    recipe: PretrainRecipe = field(default_factory=PretrainRecipe)

    def __post_init__(self) -> None:
        check_range("min_lr", self.min_lr, 1e-9, 100)
        check_range("end_lr", self.end_lr, self.min_lr, 1000)
        check_range("n_steps", self.n_steps, 10, 100_000)
        check_range("seed", self.seed, 0, 2**62)


def run(config: LrFindConfig) -> str:
    """Test and log; returns the run's id."""
    import mlflow

    from pipelines.inputs.networks import load_network
    from pipelines.results.figures import draw_lr_curve
    from pipelines.store.logging import log_dataset, log_series
    from pipelines.store.runs import tracked_run
    from tl_core.compute.devices import pick_device
    from tl_core.data.dataset import load_dataset
    from tl_core.data.splits import split_within_classes
    from tl_core.networks.batch_norms import learns_statistics
    from tl_core.training.pretraining import Pretraining

    with tracked_run("lr_find", config) as run_id:
        backbone, spec = load_network(config.weights or "random", config.backbone, config.image_size, config.seed)
        device = pick_device(config.device)
        dataset = load_dataset(config.source, spec.image_size, unreadable=config.unreadable)
        log_dataset(dataset, "source")
        split = split_within_classes(dataset, 0.1, 0.1, config.seed)
        training = Pretraining(backbone, spec, dataset, split, config.recipe, seed=config.seed)
        learns = learns_statistics(config.norm_statistics, backbone)
        rates = (config.min_lr, config.end_lr)
        curve = training.lr_range_test(device, rates, config.n_steps, batch_statistics=learns)
        log_series({"lr": curve.rates, "loss": curve.losses})
        mlflow.log_metric("suggestion", curve.suggestion)
        mlflow.log_figure(draw_lr_curve(curve), "lr_curve.png")
        print(f"lr_find {run_id}: the loss falls most steeply at max_lr={curve.suggestion:.2e}")
    return run_id


if __name__ == "__main__":
    run_command_line(LrFindConfig, run)
