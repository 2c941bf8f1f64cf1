"""The whole line: is this target learned better by transfer, and which file carries it away?

    mlflow run .                                      (the embedded digits, a few minutes)
    mlflow run . -P source=mini-imagenet/train.tar -P target=EuroSAT.zip -P backbone=resnet10 -P image_size=64
    mlflow run . -P target=my_folder -P backbone_run=timm -P backbone=resnet34 -P shots=auto

Pretrains on the source (or starts from a backbone that you have), scores floors and the found recipe on the same
episodes, says what more images would bring, fits, exports and registers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import export, finetune, fit, pretrain, register, search
from pipelines.command_line.command import run_command_line
from tl_core.recipes.checks import check_range
from tl_core.recipes.choices import ChosenPart, Device, Unreadable
from tl_core.recipes.episode import OPEN_SHAPE, EpisodeShape
from tl_core.recipes.pretrain import PretrainRecipe

if TYPE_CHECKING:
    from tl_core.data.dataset import ImageDataset

DEFAULT_SIZE = 32
DEMO_BACKBONE = (
    "the backbone has seen nothing but handwritten digits, which teaches little about other pictures; "
    "give backbone_run (a pretrain run, a weights file, or timm) or a source of your own"
)


def _demo_recipe() -> PretrainRecipe:
    """A recipe for a few thousand small pictures in which up and down have a meaning."""
    return PretrainRecipe(epochs=8, batch_size=64, max_lr=3e-3, optimizer="adamw", weight_decay=0.05, augment="crop")


@dataclass(frozen=True, kw_only=True)
class MainConfig:
    """The whole line, from images to a registered ONNX file, as one run with nested steps."""

    source: str = "digits:source"
    """Data spec of the source; nothing is read from it where a backbone_run is given."""
    target: str = "digits:target"
    """Data spec of the target."""
    backbone_run: str = ""
    """What to start from instead of pretraining on the source: id of a pretrain run; a weights file, timm, timm:TAG or
    torchvision:ENUM.NAME."""
    backbone: str = "resnet10_small"
    """Any architecture name of timm, or resnet10, resnet10_small; that of a pretrain run is known."""
    image_size: int = 0
    """Side of the square input in pixels; 0 is 32, or that which backbone_run was trained at."""
    shape: EpisodeShape = OPEN_SHAPE
    n_episodes: int = 40
    """Episodes that every method is scored on, the same ones for all."""
    n_trials: int = 8
    """Trials of the search; 0 searches nothing, nor is that done where a class is too small to give half of it away."""
    search_episodes: int = 8
    """Episodes per trial, from the other half of the target."""
    final_episodes: int = 32
    """Fresh episodes that the search's finalists are scored on."""
    shots: str = ""
    """What more images would bring: numbers of support images per class to score as well, separated by commas; auto
    goes from 1 to as many as the smallest class allows; empty scores none."""
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
        check_range("n_trials", self.n_trials, 0, 1_000_000)
        check_range("final_episodes", self.final_episodes, 2, 1_000_000)
        check_range("search_episodes", self.search_episodes, 1, 1_000_000)
        check_range("seed", self.seed, 0, 2**31 - 1)


def run(config: MainConfig) -> str:
    """Run every step as a nested run; returns the parent's id."""
    from pipelines.reports.log import log_report
    from pipelines.reports.summary import log_summary
    from pipelines.results.shots import log_shots, plan_shots
    from pipelines.store.logging import log_dataset
    from pipelines.store.runs import tracked_run
    from tl_core.data.episodes import MIN_HALF, can_be_halved

    with tracked_run("main", config, f"main {Path(config.target).name}") as run_id:
        target = _load_target(config)
        log_dataset(target, "target")
        halves = can_be_halved(target)
        if config.n_trials > 0 and not halves:
            print(f"no search: that takes {2 * MIN_HALF} images of each class, half of them to choose by")
        searched = config.n_trials > 0 and halves
        _check_target(target, config, searched)
        shapes = plan_shots(target, config.shots, config.shape, "report" if searched else "auto")
        if not config.backbone_run:
            _check_source(target, config)
        backbone_run = config.backbone_run or pretrain.run(_pretrain_config(config))
        score = _finetune_config(config, backbone_run, "report" if searched else "auto")
        runs = {
            "raw pixels": finetune.run(replace(score, backbone_run="pixels")),
            "untrained": finetune.run(replace(score, backbone_run="random")),
            "pretrained": finetune.run(score),
        }
        if searched:
            score = replace(score, search_run=search.run(_search_config(config, score)))
            runs["pretrained + searched"] = finetune.run(score)
        of_shots = {shape.n_shot: finetune.run(replace(score, shape=shape)) for shape in shapes}
        fit_run = fit.run(_fit_config(config, score))
        scored = list(runs.values())[-1]
        export_run = export.run(export.ExportConfig(fit_run=fit_run, finetune_run=scored))
        register.run(register.RegisterConfig(export_run=export_run, finetune_run=scored, name=config.name))
        log_shots(of_shots)
        log_summary(runs, export_run, config.name)
        log_report(run_id)
    return run_id


def _load_target(config: MainConfig) -> ImageDataset:
    from tl_core.data.dataset import load_dataset

    return load_dataset(config.target, config.image_size or DEFAULT_SIZE, unreadable=config.unreadable)


def _check_target(target: ImageDataset, config: MainConfig, searched: bool) -> None:
    """Refuse a target that is too small before anything is trained, not after it."""
    from tl_core.data.episodes import build_pool, check_pool, fit_shape

    for part in ("report", "search") if searched else ("all",):
        pool = build_pool(target, part)
        check_pool(pool, fit_shape(pool, config.shape))


def _check_source(target: ImageDataset, config: MainConfig) -> None:
    """Refuse a source that holds some of the target's images, and warn of one that has little to teach."""
    import mlflow

    from pipelines.store.logging import log_dataset
    from tl_core.data.dataset import load_dataset
    from tl_core.errors import InputError

    source = load_dataset(config.source, config.image_size or DEFAULT_SIZE, unreadable=config.unreadable)
    log_dataset(source, "source")
    n_shared = len(set(source.content_hashes) & set(target.content_hashes))
    if n_shared:
        raise InputError(
            f"source and target share {n_shared:,} images; a backbone must not have seen what it is scored on"
        )
    if config.source.startswith("digits:") and not config.target.startswith("digits:"):
        mlflow.set_tag("warning", DEMO_BACKBONE)
        print(f"warning: {DEMO_BACKBONE}", file=sys.stderr)


def _pretrain_config(config: MainConfig) -> pretrain.PretrainConfig:
    return pretrain.PretrainConfig(
        source=config.source,
        backbone=config.backbone,
        image_size=config.image_size or DEFAULT_SIZE,
        seed=config.seed,
        device=config.device,
        unreadable=config.unreadable,
        recipe=config.recipe,
    )


def _finetune_config(config: MainConfig, backbone_run: str, part: ChosenPart) -> finetune.FinetuneConfig:
    from pipelines.inputs.networks import load_network

    _, spec = load_network(backbone_run, config.backbone, config.image_size, config.seed)
    return finetune.FinetuneConfig(
        target=config.target,
        backbone_run=backbone_run,
        backbone=spec.architecture,  # that of the floors too
        image_size=spec.image_size,
        shape=config.shape,
        n_episodes=config.n_episodes,
        part=part,
        seed=config.seed,
        device=config.device,
        unreadable=config.unreadable,
    )


def _search_config(config: MainConfig, score: finetune.FinetuneConfig) -> search.SearchConfig:
    return search.SearchConfig(
        target=config.target,
        backbone_run=score.backbone_run,
        backbone=score.backbone,
        image_size=score.image_size,
        n_trials=config.n_trials,
        shape=config.shape,
        n_episodes=config.search_episodes,
        n_finalists=1,
        final_episodes=config.final_episodes,
        report_episodes=0,  # `finetune` does that, beside the other methods
        workers=1,
        seed=config.seed,
        device=config.device,
        unreadable=config.unreadable,
    )


def _fit_config(config: MainConfig, score: finetune.FinetuneConfig) -> fit.FitConfig:
    return fit.FitConfig(
        target=config.target,
        backbone_run=score.backbone_run,
        backbone=score.backbone,
        image_size=score.image_size,
        search_run=score.search_run,
        seed=config.seed,
        device=config.device,
        unreadable=config.unreadable,
    )


if __name__ == "__main__":
    run_command_line(MainConfig, run)
