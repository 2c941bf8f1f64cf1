"""How well does a network learn a whole labelled set?

    mlflow run . -e train -P data=EuroSAT.zip -P backbone=resnet50 -P weights=timm -P image_size=64
    mlflow run . -e train -P data=flowers -P backbone=resnet34 -P weights=timm -P epochs=5,10 -P freeze_depth=1,0

Transfer learning on training images, in stages; validation chooses each stage's weights and which stage is kept. The
test images are asked once per stage, of the weights that were chosen, and choose nothing. Every stage is a nested run.
What is saved goes to `export` as a fit run's classifier does. After each epoch a checkpoint is written: the same
command, given again after an interruption, continues there.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.command_line.command import run_command_line
from tl_core.recipes.checks import check_range
from tl_core.recipes.choices import Device, Features, SplitRule, Unreadable
from tl_core.recipes.train import TrainRecipe


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How well does a network learn a whole labelled set? Transfer learning with a test part."""

    data: str = "digits:target"
    """Data spec: class folders (in folders train, val and test, or not), an archive of them, or a csv."""
    weights: str = "random"
    """What to start from: id of a pretrain run; a weights file, timm, timm:TAG or torchvision:ENUM.NAME; or random."""
    backbone: str = "resnet10_small"
    """Architecture, where no pretrain run is named."""
    image_size: int = 0
    """Input side in pixels; 0 is that which the backbone was trained at, and 32 where it was not."""
    features: Features = "last"
    """What the head sees: the last stage, or the last four (stages), which often carries further from the source."""
    split: SplitRule = "auto"
    """Parts: those of the layout, a random split of each class, or auto, the layout's where it has them."""
    val_fraction: float = 0.1
    """Share of each class that chooses the epoch, where the layout has no such part."""
    test_fraction: float = 0.2
    """Share of each class that is scored, where the layout has no such part."""
    seed: int = 0
    """Seed of the split, the initial weights, the batches and the views."""
    device: Device = "auto"
    """Where to compute."""
    unreadable: Unreadable = "refuse"
    """What to do about unreadable files: refuse the data, or skip them."""
    name: str = ""
    """What tables and figures call this run; by default its backbone."""
    recipe: TrainRecipe = field(default_factory=TrainRecipe)

    def __post_init__(self) -> None:
        check_range("val_fraction", self.val_fraction, 0.001, 0.5)
        check_range("test_fraction", self.test_fraction, 0.001, 0.5)
        check_range("seed", self.seed, 0, 2**62)


def run(config: TrainConfig) -> str:
    """Train, score and log; returns the run's id, whose artifact `classifier` is what `export` loads."""
    import numpy as np
    from tqdm import tqdm

    from pipelines.inputs.names import is_run, network_name
    from pipelines.inputs.networks import load_network
    from pipelines.inputs.provenance import check_unseen, log_seen_images
    from pipelines.reports.log import log_report
    from pipelines.results.train_log import TrainLog
    from pipelines.store.checkpoints import kept_checkpoint
    from pipelines.store.logging import log_dataset
    from pipelines.store.runs import tracked_run
    from tl_core.compute.devices import pick_device
    from tl_core.data.dataset import load_dataset
    from tl_core.data.splits import split_for_training
    from tl_core.networks.backbones import with_features
    from tl_core.training.staged import Training

    name = config.name or f"train {config.backbone}"
    with tracked_run("train", config, name) as run_id, tempfile.TemporaryDirectory() as folder:
        network, spec = load_network(config.weights, config.backbone, config.image_size, config.seed)
        network, spec = with_features(network, spec, config.features)
        dataset = load_dataset(config.data, spec.image_size, unreadable=config.unreadable)
        log_dataset(dataset, "target")
        split = split_for_training(dataset, config.split, config.val_fraction, config.test_fraction, config.seed)
        if is_run(config.weights):
            check_unseen(config.weights, "pretrain", dataset, split.test)
        log_seen_images(dataset, np.concatenate([split.train, split.val]))
        device = pick_device(config.device)
        training = Training(network, spec, dataset, split, config.recipe, seed=config.seed, device=device)
        log = TrainLog(dataset, split, network_name(config.weights, spec, config.seed), Path(folder))
        n_images = sum(stage.epochs for stage in config.recipe.stages()) * len(split.train)
        progress = tqdm(total=n_images, desc=name, unit=" images", unit_scale=True, disable=None)
        with progress, kept_checkpoint("train", config, dataset.fingerprint) as checkpoint:
            for number, plan in enumerate(config.recipe.stages(), start=1):
                of_stage = checkpoint.with_name(f"{checkpoint.stem}-{number}.pt")
                if of_stage.is_file():
                    print(f"{name}: an interrupted training goes on in stage {number}")
                with tracked_run("stage", plan, f"stage-{number}"):
                    for epoch in training.epochs(number - 1, of_stage, on_batch=progress.update):
                        log.add(epoch)
                        progress.set_postfix(stage=number, val=f"{100 * epoch.val_accuracy:.1f}%")
                    log.close_stage(training)
            accuracy = log.close()
        log_report(run_id)
        print(f"train {run_id}: test accuracy {accuracy.percent()} on {config.data}, {log.say_chosen()}")
    return run_id


if __name__ == "__main__":
    run_command_line(TrainConfig, run)
