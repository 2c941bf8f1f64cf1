"""Accuracy against speed: which of several networks is accurate enough, and fast enough?

    mlflow run . -e pareto -P target=EuroSAT.zip -P weights=RUN,RUN,resnet18=timm -P image_size=64,96

A study with two objectives: accuracy over episodes of the half that `finetune` does not report on, with a linear head
on the frozen network, and the seconds that the exported file takes for one image on one core. Every trial is a nested
run; those that no other beats in both are the Pareto front. Being the best of many, they are to be scored once more by
`finetune`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import TargetData
from pipelines.configs.episodes import PairedEpisodes
from pipelines.configs.network import FewShotNetwork
from pipelines.configs.where import Where
from tl_core.errors import InputError
from tl_core.recipes.checks import check_range, check_seed
from tl_core.recipes.episode import OPEN_SHAPE, EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe

if TYPE_CHECKING:
    from pipelines.inputs.target import Target
    from tl_core.search.pareto_front import Design, Scored


_METRICS = ("accuracy", "seconds per image")


@dataclass(frozen=True, kw_only=True)
class ParetoConfig:
    """Accuracy against speed of several networks, an Optuna study of both."""

    data: TargetData = field(default_factory=TargetData)
    weights: str
    """Networks, separated by commas: pretrain runs, or an architecture, =, and its weights: a file, timm, timm:TAG,
    torchvision:ENUM.NAME or random."""
    image_size: str = ""
    """Input sides in pixels to choose from, separated by commas; empty is that of the first network."""
    n_trials: int = 30
    """Trials that the study holds in the end."""
    study: str = ""
    """Name of a study to continue; empty starts one named after the run."""
    shape: EpisodeShape = OPEN_SHAPE
    episodes: PairedEpisodes = field(default_factory=PairedEpisodes)
    augment: str = "dihedral"
    """Views of the support images: none, or flip, dihedral, crop, colour joined by +."""
    seed: int = 0
    """Seed of the episodes and the proposals."""
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range("n_trials", self.n_trials, 1, 1_000_000)
        if not _words(self.weights):
            raise InputError("weights is empty; give pretrain runs, or ARCHITECTURE=WEIGHTS, joined by commas")
        wrong = [size for size in _words(self.image_size) if not size.isdigit()]
        if wrong:
            raise InputError(
                f"expected image_size as whole numbers of pixels joined by commas, got {self.image_size!r}"
            )


def _words(text: str) -> list[str]:
    return [word for word in text.replace(" ", "").split(",") if word]


def run(config: ParetoConfig) -> str:
    """Search and log; returns the run's id, whose artifact `pareto.csv` is the front."""
    import mlflow
    import optuna
    import pandas as pd
    from optuna.visualization import plot_pareto_front
    from tqdm import tqdm

    from pipelines.inputs.names import run_name
    from pipelines.store.child_runs import ChildRuns, FinishedRun
    from pipelines.store.connection import study_storage
    from pipelines.store.logging import log_plots
    from pipelines.store.runs import tracked_run
    from tl_core.scoring.episodes import estimate
    from tl_core.search.pareto_front import all_scored, build_front_study, find_front, run_designs
    from tl_core.search.studies import check_study_settings

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tracked_run("pareto", config, run_name("pareto", config.data.target)) as run_id:
        study = build_front_study(config.study or f"pareto-{run_id}", study_storage(), config.seed)
        mlflow.set_tag("study", study.study_name)
        networks = _words(config.weights)
        sizes = [int(size) for size in _words(config.image_size)] or [_own_size(networks[0], config.seed)]
        check_study_settings(study, _setting(config, networks, sizes), _METRICS)
        children = ChildRuns("trial")
        designs = run_designs(study, networks, sizes, _judge(config), config.n_trials)
        for one in tqdm(designs, total=config.n_trials, desc="pareto", unit="trial", disable=None):
            name = f"trial-{one.number:04d}"
            children.add(FinishedRun(name, one.start, one.end, _metrics(one), {}, asdict(one.design)))
        children.close()
        scored = all_scored(study)
        if not scored:
            raise InputError(f"none of {config.n_trials} designs could be judged; give networks that show their stages")
        front = find_front(scored)
        mlflow.log_text(
            str(pd.DataFrame([{**asdict(one.design), **_metrics(one)} for one in front]).to_csv(index=False)),
            "pareto.csv",
        )
        log_plots(
            {"Pareto front": lambda: plot_pareto_front(study, target_names=list(_METRICS))}, "plots/pareto_front.html"
        )
        mlflow.log_metrics({"n_trials": len(scored), "n_front": len(front)})
        for one in front:
            design = one.design
            what = f"{design.network} at {design.image_size} px, {design.features}, {design.test_views}"
            print(f"pareto {run_id}: {1000 * one.seconds:8.2f} ms  {estimate(one.scores).percent()}  {what}")
    return run_id


def _setting(config: ParetoConfig, networks: Sequence[str], sizes: Sequence[int]) -> dict[str, object]:
    """Return the setting that a study which goes on must not change."""
    return {
        "target": config.data.target,
        "shape": asdict(config.shape),
        "n_episodes": config.episodes.n_episodes,
        "augment": config.augment,
        "seed": config.seed,
        "networks": list(networks),
        "sizes": list(sizes),
    }


def _metrics(one: Scored) -> dict[str, float]:
    from tl_core.scoring.episodes import estimate

    result = estimate(one.scores)
    return {"accuracy": result.mean, "accuracy_ci95": result.ci95, "seconds_per_image": one.seconds}


def _own_size(network: str, seed: int) -> int:
    from pipelines.inputs.networks import load_network

    weights, architecture = _split(network)
    return load_network(weights, architecture, 0, seed)[1].image_size


def _split(network: str) -> tuple[str, str]:
    """Weights or run, and the architecture where it is told: `resnet18=timm` to (timm, resnet18)."""
    architecture, _, weights = network.rpartition("=") if "=" in network else ("", "", network)
    return weights, architecture


def _open(config: ParetoConfig, design: Design) -> Target:
    from pipelines.inputs.target import open_network_on

    weights, architecture = _split(design.network)
    network = FewShotNetwork(
        weights=weights, backbone=architecture, image_size=design.image_size, features=design.features
    )
    return open_network_on(config.data, network, config.seed, config.where.device)


def _judge(config: ParetoConfig) -> Callable[[Design], tuple[Sequence[float], float]]:
    """From a design to its accuracies and seconds; networks, and what was timed, are kept."""
    from tl_core.data.episodes import build_pool, check_pool, fit_shape, sample_episode
    from tl_core.fewshot.finetuner import Finetuner
    from tl_core.search.pareto_front import seconds_per_image
    from tl_core.search.workers import EpisodeScores

    opened: dict[tuple[object, ...], tuple[Finetuner, EpisodeScores]] = {}
    timed: dict[tuple[object, ...], float] = {}

    def judge(design: Design) -> tuple[Sequence[float], float]:
        key = (design.network, design.image_size, design.features)
        if key not in opened:
            finetuner = _open(config, design).finetuner
            pool = build_pool(finetuner.dataset, "search")
            shape = fit_shape(pool, config.shape)
            check_pool(pool, shape)
            opened[key] = finetuner, EpisodeScores(pool, shape, config.seed, range(config.episodes.n_episodes))
        finetuner, episodes = opened[key]
        recipe = FinetuneRecipe(augment=config.augment, test_views=design.test_views, l2=design.l2)
        scores = list(episodes.score(finetuner, recipe))
        if (*key, design.test_views) not in timed:
            rows = sample_episode(episodes.pool, episodes.shape, config.seed, 0).support_rows
            classifier = finetuner.fit_classifier(rows, recipe, config.seed)
            timed[*key, design.test_views] = seconds_per_image(classifier, design.image_size)
        return scores, timed[*key, design.test_views]

    return judge


if __name__ == "__main__":
    run_command_line(ParetoConfig, run)
