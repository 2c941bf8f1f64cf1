"""Supervised pretraining: how well does a backbone learn the source classes?

    mlflow run . -e pretrain -P source=mini-imagenet/train.tar -P backbone=resnet10 -P image_size=64 -P epochs=30

Every class of the source is split into training, validation and test images; the weights that are best on
validation are kept, and the test images are asked once, at the end. After each epoch a checkpoint is written: the same
command, given again after an interruption, continues there, and its run has the whole curve. Several processes share
the work: torchrun --nproc-per-node=2 -m pipelines.pretrain --source ...
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import SplitSource
from pipelines.configs.fields import flat_params, with_values
from pipelines.configs.network import Network
from pipelines.configs.where import Where
from tl_core.recipes.checks import check_seed
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.pretrain import PretrainRecipe

if TYPE_CHECKING:
    import torch

    from pipelines.results.figures import Curve
    from tl_core.compute.distributed import World
    from tl_core.data.dataset import ImageDataset
    from tl_core.data.splits import ClassSplit
    from tl_core.networks.backbones import BackboneSpec
    from tl_core.training.pretraining import Pretraining
    from tl_core.training.resumable import Epoch


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Supervised pretraining of a backbone on the source classes."""

    data: SplitSource = field(default_factory=SplitSource)
    network: Network = field(default_factory=Network)
    novel: str = ""
    """Data spec of other classes; where given, few-shot accuracies on them are logged with the backbone."""
    novel_episodes: EpisodeShape = field(default_factory=EpisodeShape)
    seed: int = 0
    """Seed of the split, the initial weights, the batches and the views."""
    recipe: PretrainRecipe = field(default_factory=PretrainRecipe)
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        check_seed(self.seed)


def run(config: PretrainConfig) -> str:
    """Pretrain and log; returns the run's id, whose artifact `backbone` is what `finetune` loads.

    Under torchrun the first process does so, and the others train along with it and return an empty string.
    """
    from tl_core.compute.devices import pick_device
    from tl_core.compute.distributed import join_world

    device = pick_device(config.where.device)
    with join_world(device) as world:
        return _lead(config, device, world) if world.leads else _follow(config, device, world)


def _lead(config: PretrainConfig, device: torch.device, world: World) -> str:
    import mlflow
    import numpy as np

    from pipelines.inputs.artifacts import BACKBONE_ARTIFACT
    from pipelines.inputs.provenance import log_seen_images
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.reports.log import log_report
    from pipelines.results.figures import draw_curves
    from pipelines.store.checkpoints import hold_checkpoint
    from pipelines.store.logging import interval_metrics, log_dataset, log_drawing
    from pipelines.store.params import log_params
    from pipelines.store.runs import tracked_run
    from tl_core.data.dataset import load_dataset
    from tl_core.data.episodes import build_pool, check_pool, fit_shape
    from tl_core.heads.storage import save_backbone
    from tl_core.scoring.images import wilson_of_share

    with tracked_run("pretrain", config, _run_name(config)) as run_id:
        config = with_run_ids(config, weights="pretrain")
        work = _build(config, world)
        log_dataset(work.dataset, "source")
        log_seen_images(work.dataset, np.arange(len(work.dataset.labels)), config.network.weights)
        novel = None
        if config.novel:
            novel = load_dataset(
                config.novel,
                work.spec.image_size,
                unreadable=config.data.unreadable,
                class_level=config.data.class_level,
            )
            pool = build_pool(novel, "all")
            check_pool(pool, fit_shape(pool, config.novel_episodes))
        checkpoint = hold_checkpoint("pretrain", config, work.dataset.fingerprint)
        max_lr = work.training.settle_max_lr(device)
        mlflow.log_metric("max_lr", max_lr)
        used = {"backbone": work.spec.architecture, "image_size": work.spec.image_size, "device": device.type}
        log_params(flat_params(with_values(config, max_lr=max_lr, **used)))
        history = _train(work, config, device, checkpoint)
        test_accuracy = work.training.test_accuracy(device)
        best = max(epoch.val_accuracy for epoch in history)
        n_test = len(work.split.test)
        mlflow.log_metrics({"test/accuracy": test_accuracy, "val/best_accuracy": best, "n_test": n_test})
        mlflow.log_metrics(interval_metrics("accuracy", wilson_of_share(test_accuracy, n_test)))
        log_drawing(lambda: draw_curves([_curve_of(history)]), "curves.png")
        with tempfile.TemporaryDirectory() as folder:
            covariance = work.training.stage_covariance(device)
            save_backbone(work.training.backbone, work.spec, Path(folder, BACKBONE_ARTIFACT), covariance)
            mlflow.log_artifacts(folder)
        if novel is not None:
            _check_features(work, novel, config, device)
        log_report(run_id)
        print(f"pretrain {run_id}: test accuracy {100 * test_accuracy:.2f} % on {n_test:,} images")
    return run_id


def _curve_of(history: list[Epoch]) -> Curve:
    from pipelines.results.figures import Curve

    return Curve(
        "",
        train_loss=[epoch.training.loss for epoch in history],
        train_accuracy=[epoch.training.accuracy for epoch in history],
        val_loss=[],
        val_accuracy=[epoch.val_accuracy for epoch in history],
    )


def _run_name(config: PretrainConfig) -> str:
    from pipelines.inputs.names import short_data

    return f"pretrain {config.network.backbone} on {short_data(config.data.source)}"


def _follow(config: PretrainConfig, device: torch.device, world: World) -> str:
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.store.checkpoints import checkpoint_path
    from pipelines.store.connection import prepare_store

    prepare_store()  # the weights to start from may be those of a run
    config = with_run_ids(config, weights="pretrain")
    work = _build(config, world)
    for _ in work.training.epochs(device, checkpoint_path("pretrain", config, work.dataset.fingerprint)):
        pass  # the first process logs
    return ""


@dataclass(frozen=True)
class _Work:
    spec: BackboneSpec
    dataset: ImageDataset
    split: ClassSplit
    training: Pretraining


def _build(config: PretrainConfig, world: World) -> _Work:
    from pipelines.inputs.networks import load_network
    from tl_core.data.dataset import load_dataset
    from tl_core.data.splits import split_within_classes
    from tl_core.training.pretraining import Pretraining

    network = config.network
    backbone, spec = load_network(network.weights, network.backbone, network.image_size, config.seed)
    dataset = load_dataset(
        config.data.source, spec.image_size, unreadable=config.data.unreadable, class_level=config.data.class_level
    )
    fractions = config.data.val_fraction, config.data.test_fraction
    split = split_within_classes(dataset, *fractions, config.seed, dataset.near_duplicates)
    training = Pretraining(backbone, spec, dataset, split, config.recipe, seed=config.seed, world=world)
    return _Work(spec, dataset, split, training)


def _check_features(work: _Work, novel: ImageDataset, config: PretrainConfig, device: torch.device) -> None:
    import mlflow

    from pipelines.store.logging import log_dataset
    from tl_core.fewshot.self_check import check_features

    log_dataset(novel, "novel")
    for name, result in check_features(
        work.training.backbone, work.spec, novel, config.novel_episodes, config.seed, device
    ).items():
        mlflow.log_metrics({f"novel/{name}": result.mean, f"novel/{name}_ci95": result.ci95})
        print(f"{name.replace('_', ' ')} on {config.novel}: {result.percent()}")


def _train(work: _Work, config: PretrainConfig, device: torch.device, checkpoint: Path) -> list[Epoch]:
    """All epochs, those of an earlier, interrupted process included, each logged once."""
    import mlflow
    from tqdm import tqdm

    history: list[Epoch] = []
    resumed = checkpoint.is_file()
    with tqdm(
        total=config.recipe.epochs * len(work.split.train),
        desc=f"pretrain {config.network.backbone}",
        unit=" images",
        unit_scale=True,
        disable=None,
    ) as progress:
        for epoch in work.training.epochs(device, checkpoint, on_batch=progress.update):
            history.append(epoch)
            mlflow.log_metrics(
                {
                    "train/loss": epoch.training.loss,
                    "train/accuracy": epoch.training.accuracy,
                    "train/lr": epoch.training.lr,
                    "train/images_per_second": epoch.training.images / epoch.training.seconds,
                    "val/accuracy": epoch.val_accuracy,
                },
                step=epoch.training.epoch,
            )
            progress.set_postfix(epoch=epoch.training.epoch, val=f"{100 * epoch.val_accuracy:.1f}%")
    mlflow.set_tag("resumed", str(resumed).lower())
    return history


if __name__ == "__main__":
    run_command_line(PretrainConfig, run)
