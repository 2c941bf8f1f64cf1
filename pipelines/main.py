"""The whole line: is this target learned better by transfer, and which file carries it away?

    mlflow run .                                      (the embedded digits, a few minutes)
    mlflow run . -P source=mini-imagenet/train.tar -P target=EuroSAT.zip -P backbone=resnet10 -P image_size=64

Pretrains on the source, scores three floors and the found recipe on the same episodes, fits, exports and registers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pipelines import export, finetune, fit, pretrain, register, search
from pipelines.cli import run_command_line
from tl_core.recipes import OPEN_SHAPE, Device, EpisodeShape, PretrainRecipe, Unreadable, check_range


def _demo_recipe() -> PretrainRecipe:
    """A recipe for a few thousand small pictures in which up and down have a meaning."""
    return PretrainRecipe(epochs=8, batch_size=64, max_lr=3e-3, optimizer="adamw", weight_decay=0.05, augment="crop")


@dataclass(frozen=True, kw_only=True)
class MainConfig:
    """The whole line, from images to a registered ONNX file, as one run with nested steps."""

    source: str = "digits:source"
    """Data spec of the source."""
    target: str = "digits:target"
    """Data spec of the target."""
    backbone: str = "resnet10_small"
    """Any architecture name of timm, or resnet10, resnet10_small."""
    image_size: int = 32
    """Side of the square input in pixels."""
    shape: EpisodeShape = OPEN_SHAPE
    n_episodes: int = 40
    """Episodes that every method is scored on, the same ones for all."""
    n_trials: int = 8
    """Trials of the search."""
    search_episodes: int = 8
    """Episodes per trial, from the other half of the target."""
    final_episodes: int = 24
    """Fresh episodes that the search's finalists are scored on."""
    name: str = "transfer-lab"
    """Name of the registered model."""
    seed: int = 0
    """Seed of everything that is drawn."""
    device: Device = "auto"
    """Where to compute."""
    unreadable: Unreadable = "refuse"
    """What to do about unreadable files: refuse the data, or skip them."""
    recipe: PretrainRecipe = field(default_factory=_demo_recipe)

    def __post_init__(self) -> None:
        check_range("n_episodes", self.n_episodes, 2, 10_000_000)
        check_range("n_trials", self.n_trials, 1, 1_000_000)
        check_range("final_episodes", self.final_episodes, 2, 1_000_000)
        check_range("search_episodes", self.search_episodes, 1, 1_000_000)
        check_range("seed", self.seed, 0, 2**31 - 1)


def run(config: MainConfig) -> str:
    """Run every step as a nested run; returns the parent's id."""
    from pipelines.report import log_report
    from pipelines.summary import log_summary
    from pipelines.tracking import tracked_run

    with tracked_run("main", config) as run_id:
        _check_data(config)
        backbone_run = pretrain.run(_pretrain_config(config))
        score = _finetune_config(config)
        runs = {
            "raw pixels": finetune.run(replace(score, backbone_run="pixels")),
            "untrained": finetune.run(replace(score, backbone_run="random")),
            "pretrained": finetune.run(replace(score, backbone_run=backbone_run)),
        }
        search_run = search.run(_search_config(config, backbone_run))
        searched = finetune.run(replace(score, backbone_run=backbone_run, search_run=search_run))
        runs["pretrained + searched"] = searched
        fit_run = fit.run(_fit_config(config, backbone_run, search_run))
        export_run = export.run(export.ExportConfig(fit_run=fit_run, finetune_run=searched))
        register.run(register.RegisterConfig(export_run=export_run, finetune_run=searched, name=config.name))
        log_summary(runs, export_run, config.name)
        log_report(run_id)
    return run_id


def _check_data(config: MainConfig) -> None:
    """Refuse a target that is too small, or part of the source, before the source is trained on, not after it."""
    from tl_core.datasets import load_dataset
    from tl_core.episodes import build_pool, check_pool, fit_shape
    from tl_core.errors import InputError

    target = load_dataset(config.target, config.image_size, unreadable=config.unreadable)
    for pool in (build_pool(target, "report"), build_pool(target, "search")):
        check_pool(pool, fit_shape(pool, config.shape))
    source = load_dataset(config.source, config.image_size, unreadable=config.unreadable)
    n_shared = len(set(source.content_hashes) & set(target.content_hashes))
    if n_shared:
        raise InputError(
            f"source and target share {n_shared:,} images; a backbone must not have seen what it is scored on"
        )


def _pretrain_config(config: MainConfig) -> pretrain.PretrainConfig:
    return pretrain.PretrainConfig(
        source=config.source,
        backbone=config.backbone,
        image_size=config.image_size,
        seed=config.seed,
        device=config.device,
        unreadable=config.unreadable,
        recipe=config.recipe,
    )


def _finetune_config(config: MainConfig) -> finetune.FinetuneConfig:
    return finetune.FinetuneConfig(
        target=config.target,
        backbone_run="random",
        backbone=config.backbone,
        image_size=config.image_size,
        shape=config.shape,
        n_episodes=config.n_episodes,
        part="report",
        seed=config.seed,
        device=config.device,
        unreadable=config.unreadable,
    )


def _search_config(config: MainConfig, backbone_run: str) -> search.SearchConfig:
    return search.SearchConfig(
        target=config.target,
        backbone_run=backbone_run,
        n_trials=config.n_trials,
        shape=config.shape,
        n_episodes=config.search_episodes,
        n_finalists=2,
        final_episodes=config.final_episodes,
        seed=config.seed,
        device=config.device,
        unreadable=config.unreadable,
    )


def _fit_config(config: MainConfig, backbone_run: str, search_run: str) -> fit.FitConfig:
    return fit.FitConfig(
        target=config.target,
        backbone_run=backbone_run,
        search_run=search_run,
        seed=config.seed,
        device=config.device,
        unreadable=config.unreadable,
    )


if __name__ == "__main__":
    run_command_line(MainConfig, run)
