"""The whole line: is this target learned better by transfer, and which file carries it away?

    mlflow run .                                      (the embedded digits, a few minutes)
    mlflow run . -P source=mini-imagenet/train.tar -P target=EuroSAT.zip -P backbone=resnet10 -P image_size=64
    mlflow run . -P target=my_folder -P weights=timm -P backbone=resnet34 -P shots=auto

Pretrains on the source (or starts from a backbone that you have), scores baselines and the found recipe on the same
episodes, says what more images would bring, fits, exports and registers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines import export, finetune, fit, pretrain, register, search
from pipelines.command_line.command import run_command_line
from pipelines.configs.data import SourceAndTarget, TargetData
from pipelines.configs.episodes import PairedEpisodes
from pipelines.configs.fields import flat_params, make_config, with_values
from pipelines.configs.network import DemoNetwork
from pipelines.configs.where import Where
from tl_core.recipes.checks import check_range, check_seed
from tl_core.recipes.choices import ChosenPart, Features
from tl_core.recipes.episode import OPEN_SHAPE, EpisodeShape
from tl_core.recipes.pretrain import PretrainRecipe

if TYPE_CHECKING:
    from tl_core.data.dataset import ImageDataset

DEFAULT_SIZE = 32
DEMO_BACKBONE = (
    "the backbone has seen nothing but handwritten digits, which teaches little about other pictures; "
    "give weights (a pretrain run, a file, or timm) or a source of your own"
)


def _demo_recipe() -> PretrainRecipe:
    """A recipe for a few thousand small pictures in which up and down have a meaning."""
    return PretrainRecipe(epochs=8, batch_size=64, max_lr=3e-3, optimizer="adamw", weight_decay=0.05, augment="crop")


@dataclass(frozen=True, kw_only=True)
class MainConfig:
    """The whole line, from images to a registered ONNX file, as one run with nested steps."""

    data: SourceAndTarget = field(default_factory=SourceAndTarget)
    network: DemoNetwork = field(default_factory=DemoNetwork)
    shape: EpisodeShape = OPEN_SHAPE
    episodes: PairedEpisodes = field(default_factory=PairedEpisodes)
    n_trials: int = 8
    """Trials of the search; 0 searches nothing, nor is that done where a class is too small to give half of it away."""
    shots: str = ""
    """Numbers of support images per class for a learning curve, separated by commas; auto goes from 1 to as many as the
    smallest class allows; empty draws none."""
    name: str = "transfer-lab"
    """Name of the registered model."""
    seed: int = 0
    """Seed of everything that is drawn."""
    recipe: PretrainRecipe = field(default_factory=_demo_recipe)
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range("n_trials", self.n_trials, 0, 1_000_000)


def run(config: MainConfig) -> str:
    """Run every step as a nested run; returns the parent's id."""
    from pipelines.command_line.steps import Steps, seconds_of_children
    from pipelines.inputs.names import run_name
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.reports.log import log_report
    from pipelines.reports.summary import log_summary
    from pipelines.results.shots import log_shots, plan_shots
    from pipelines.store.logging import log_dataset
    from pipelines.store.params import log_params
    from pipelines.store.runs import tracked_run
    from tl_core.data.episodes import build_pool, can_be_halved, fit_shape
    from tl_core.data.halves import MIN_HALF

    with tracked_run("main", config, run_name("main", config.data.target)) as run_id:
        config = with_run_ids(config, weights="pretrain")
        target = _load_target(config)
        log_dataset(target, "target")
        halves = can_be_halved(target)
        if config.n_trials > 0 and not halves:
            print(f"no search: that takes {2 * MIN_HALF} images of each class, half of them to choose by")
        searched = config.n_trials > 0 and halves
        _check_target(target, config, searched)
        shapes = plan_shots(target, config.shots, config.shape, "report" if searched else "auto")
        if not config.network.weights:
            _check_source(target, config)
        total = _count_steps(config, searched, len(shapes))
        steps = Steps(total, seconds_of_children("main", total, target=config.data.target))
        weights = config.network.weights or steps.run("pretraining", pretrain.run, _pretrain_config(config))
        score = _finetune_config(config, weights, "report" if searched else "auto")
        network = score.network
        shape = fit_shape(build_pool(target, "report" if halves else "all"), config.shape)
        used = with_values(config, backbone=network.backbone, image_size=network.image_size, shape=shape)
        log_params(flat_params(used))
        runs = {
            name: steps.run(f"scoring {name} on {score.episodes.n_episodes} episodes", finetune.run, one)
            for name, one in _methods(score).items()
        }
        if searched:
            found = steps.run(f"search of {config.n_trials} trials", search.run, _search_config(config, score))
            score = with_values(score, search_run=found)
            runs["pretrained + searched"] = steps.run("scoring what was found", finetune.run, score)
        of_shots = {
            shape.n_shot: steps.run(
                f"learning curve, {shape.n_shot} per class", finetune.run, with_values(score, shape=shape)
            )
            for shape in shapes
        }
        fit_run = steps.run("the final classifier, from all images", fit.run, _fit_config(config, score))
        scored = list(runs.values())[-1]
        exported = export.ExportConfig(run=fit_run, finetune_run=scored)
        export_run = steps.run("one file, compared with the classifier", export.run, exported)
        registered = register.RegisterConfig(run=export_run, finetune_run=scored, name=config.name)
        register_run = steps.run("a version in the registry", register.run, registered)
        log_shots(of_shots)
        log_summary(runs, export_run, register_run, config.name)
        log_report(run_id)
    return run_id


def _count_steps(config: MainConfig, searched: bool, n_shots: int) -> int:
    """Count pretraining, three methods, search and its score, the learning curve, and fit, export and register."""
    return (not config.network.weights) + 3 + 2 * searched + n_shots + 3


def _methods(score: finetune.FinetuneConfig) -> dict[str, finetune.FinetuneConfig]:
    """The network without a search, and what it has to beat."""
    features = _without_source(score.network.features)
    return {
        "raw pixels": with_values(score, weights="pixels", features="last"),
        "untrained": with_values(score, weights="random", features=features),
        "pretrained": score,
    }


def _load_target(config: MainConfig) -> ImageDataset:
    from tl_core.data.dataset import load_dataset

    return load_dataset(
        config.data.target, _image_size(config), unreadable=config.data.unreadable, class_level=config.data.class_level
    )


def _image_size(config: MainConfig) -> int:
    return config.network.image_size or DEFAULT_SIZE


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

    source = load_dataset(
        config.data.source, _image_size(config), unreadable=config.data.unreadable, class_level=config.data.class_level
    )
    log_dataset(source, "source")
    n_shared = len(set(source.content_hashes) & set(target.content_hashes))
    if n_shared:
        raise InputError(
            f"source and target share {n_shared:,} images; a backbone must not have seen what it is scored on"
        )
    if config.data.source.startswith("digits:") and not config.data.target.startswith("digits:"):
        mlflow.set_tag("warning", DEMO_BACKBONE)
        print(f"warning: {DEMO_BACKBONE}", file=sys.stderr)


def _pretrain_config(config: MainConfig) -> pretrain.PretrainConfig:
    return make_config(
        pretrain.PretrainConfig,
        source=config.data.source,
        unreadable=config.data.unreadable,
        class_level=config.data.class_level,
        backbone=config.network.backbone,
        image_size=_image_size(config),
        seed=config.seed,
        recipe=config.recipe,
        where=config.where,
    )


def _finetune_config(config: MainConfig, weights: str, part: ChosenPart) -> finetune.FinetuneConfig:
    from pipelines.inputs.networks import load_plain

    loaded = load_plain(weights, config.network.backbone, config.network.image_size, config.seed)
    spec = loaded.spec
    return make_config(
        finetune.FinetuneConfig,
        target=config.data.target,
        part=part,
        unreadable=config.data.unreadable,
        class_level=config.data.class_level,
        weights=weights,
        backbone=spec.architecture,  # that of the baselines too
        image_size=spec.image_size,
        features=loaded.best_features(),
        shape=config.shape,
        n_episodes=config.episodes.n_episodes,
        seed=config.seed,
        device=config.where.device,
    )


def _without_source(features: Features) -> Features:
    """Return the kind of features that an untrained network can give too."""
    return "stages" if features == "whitened" else features


def _search_config(config: MainConfig, score: finetune.FinetuneConfig) -> search.SearchConfig:
    n_episodes = config.episodes.n_episodes
    return make_config(
        search.SearchConfig,
        target=config.data.target,
        unreadable=config.data.unreadable,
        class_level=config.data.class_level,
        network=score.network,
        n_trials=config.n_trials,
        shape=config.shape,
        n_episodes=max(1, n_episodes // 5),
        final_episodes=max(2, n_episodes * 4 // 5),
        report_episodes=0,  # `finetune` does that, beside the other methods
        seed=config.seed,
        device=config.where.device,
        workers=1,  # so that the same command repeats the same trials
    )


def _fit_config(config: MainConfig, score: finetune.FinetuneConfig) -> fit.FitConfig:
    return fit.FitConfig(
        data=TargetData(
            target=config.data.target, unreadable=config.data.unreadable, class_level=config.data.class_level
        ),
        network=score.network,
        search_run=score.search_run,
        seed=config.seed,
        where=config.where,
    )


if __name__ == "__main__":
    run_command_line(MainConfig, run)
