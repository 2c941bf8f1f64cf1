"""Transfer learning on a whole labelled set, with a test part.

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
from pipelines.configs.data import SplitData
from pipelines.configs.fields import flat_params, with_values
from pipelines.configs.network import TrainNetwork
from pipelines.configs.where import Where
from tl_core.recipes.checks import check_seed
from tl_core.recipes.train import TrainRecipe


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Transfer learning on a whole labelled set, with a test part."""

    data: SplitData = field(default_factory=SplitData)
    network: TrainNetwork = field(default_factory=TrainNetwork)
    seed: int = 0
    """Seed of the split, the initial weights, the batches and the views."""
    name: str = ""
    """Name of this run in tables and figures; by default its backbone."""
    recipe: TrainRecipe = field(default_factory=TrainRecipe)
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        check_seed(self.seed)


def run(config: TrainConfig) -> str:
    """Train, score and log; returns the run's id, whose artifact `classifier` is what `export` loads."""
    import numpy as np
    from tqdm import tqdm

    from pipelines.inputs.names import is_run, network_name
    from pipelines.inputs.networks import load_network
    from pipelines.inputs.provenance import check_unseen, log_normalisation, log_seen_images
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.reports.log import log_report
    from pipelines.results.train_log import TrainLog
    from pipelines.store.checkpoints import hold_checkpoint
    from pipelines.store.logging import log_dataset
    from pipelines.store.params import log_params
    from pipelines.store.runs import rename_run, tracked_run
    from tl_core.compute.devices import pick_device
    from tl_core.data.dataset import load_dataset
    from tl_core.data.splits import split_for_training
    from tl_core.training.staged import Training

    name = config.name or _run_name(config)
    with tracked_run("train", config, name) as run_id, tempfile.TemporaryDirectory() as folder:
        config = with_run_ids(config, weights="pretrain")
        rename_run(name, name := config.name or _run_name(config))
        start, data = config.network, config.data
        network, spec = load_network(start.weights, start.backbone, start.image_size, config.seed, start.features)
        dataset = load_dataset(data.data, spec.image_size, unreadable=data.unreadable, class_level=data.class_level)
        log_dataset(dataset, "target")
        split = split_for_training(dataset, data.split, data.val_fraction, data.test_fraction, config.seed)
        if is_run(start.weights):
            check_unseen(start.weights, "pretrain", dataset, split.test)
        log_seen_images(dataset, np.concatenate([split.train, split.val]), start.weights)
        device = pick_device(config.where.device)
        used = {"backbone": spec.architecture, "image_size": spec.image_size, "device": device.type, "name": name}
        log_params(flat_params(with_values(config, **used)))
        log_normalisation(spec)
        training = Training(network, spec, dataset, split, config.recipe, seed=config.seed, device=device)
        log = TrainLog(dataset, split, network_name(start.weights, spec, config.seed), Path(folder))
        n_images = sum(stage.epochs for stage in config.recipe.stages()) * len(split.train)
        progress = tqdm(total=n_images, desc=name, unit=" images", unit_scale=True, disable=None)
        checkpoint = hold_checkpoint("train", config, dataset.fingerprint, split.fingerprint)
        with progress:
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
        print(f"train {run_id}: test accuracy {accuracy.percent()} on {data.data}, {log.say_chosen()}")
    return run_id


def _run_name(config: TrainConfig) -> str:
    from pipelines.inputs.names import run_name

    return run_name("train", config.data.data, config.network.weights, config.network.backbone)


if __name__ == "__main__":
    run_command_line(TrainConfig, run)
