"""Which learning rate, freezing depth and augmentation suit this target?

    mlflow run . -e search -P target=EuroSAT.zip -P backbone_run=<id of a pretrain run> -P n_trials=30

An Optuna study over episodes from the half of the target that `finetune` does not report on. Every trial is a
nested run; trials that are clearly behind the best one on the same episodes are stopped early. The best few and the
base recipe are then scored on fresh episodes, because the best of many is partly the luckiest; the best of these wins,
if it is better than the base recipe beyond chance, and the base recipe stays otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pipelines.cli import run_command_line
from pipelines.target import TargetConfig, open_target
from tl_core.errors import InputError
from tl_core.recipes import OPEN_SHAPE, EpisodeShape, FinetuneRecipe, check_range

if TYPE_CHECKING:
    import optuna

    from tl_core.episodes import EpisodePool
    from tl_core.finetune import Finetuner


@dataclass(frozen=True, kw_only=True)
class SearchConfig(TargetConfig):
    """Which learning rate, freezing depth and augmentation suit this target? An Optuna study."""

    n_trials: int = 20
    """Trials that the study shall hold in the end."""
    shape: EpisodeShape = OPEN_SHAPE
    n_episodes: int = 20
    """Episodes per trial, the same ones for every trial."""
    n_finalists: int = 3
    """Best trials that are scored once more, beside the base recipe, before one of them wins."""
    final_episodes: int = 40
    """Episodes for that, which no trial has seen."""
    study: str = ""
    """Name of a study to continue; empty starts one named after the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("n_trials", self.n_trials, 1, 1_000_000)
        check_range("n_episodes", self.n_episodes, 1, 1_000_000)
        check_range("n_finalists", self.n_finalists, 1, 1_000_000)
        check_range("final_episodes", self.final_episodes, 2, 1_000_000)
        if self.recipe.max_lr == "auto":
            raise InputError("max_lr is auto; allowed is a number: the rate that the search starts from")


def run(config: SearchConfig) -> str:
    """Search and log; returns the run's id, whose artifact `recipe.json` is what `finetune` and `fit` load."""
    import mlflow
    import numpy as np
    from tqdm import tqdm

    from pipelines.provenance import log_seen_images, network_name
    from pipelines.report import log_report
    from pipelines.tracking import tracked_run
    from pipelines.trial_log import TrialLog, study_storage
    from tl_core.episodes import build_pool, check_pool, fit_shape
    from tl_core.scoring import estimate
    from tl_core.search import SEARCHED, SearchSpace, build_study, check_setting, rescore, run_trials

    with tracked_run("search", config) as run_id:
        opened = open_target(config)
        dataset = opened.dataset
        pool = build_pool(dataset, "search")
        log_seen_images(dataset, np.concatenate(pool.rows_by_class))  # what it draws from, and nothing else
        config = replace(config, shape=fit_shape(pool, config.shape))
        check_pool(pool, config.shape)
        study = build_study(config.study or f"search-{run_id}", study_storage(), config.seed)
        mlflow.set_tag("study", study.study_name)
        fixed = {name: value for name, value in asdict(config.recipe).items() if name not in SEARCHED}
        check_setting(
            study,
            {
                "pool": pool.fingerprint,
                "network": network_name(config.backbone_run, opened.spec, config.seed),
                "recipe": fixed,
            }
            | {"n_episodes": config.n_episodes, "seed": config.seed, **asdict(config.shape)},
        )
        log = TrialLog(study)
        score = partial(_scores, opened.finetuner, pool, config)
        trials = run_trials(
            study,
            SearchSpace(),
            config.recipe,
            lambda recipe: score(recipe, range(config.n_episodes)),
            config.n_trials,
        )
        for trial in tqdm(trials, total=config.n_trials, desc="search", unit="trial", disable=None):
            log.add(trial)
        fresh = range(config.n_episodes, config.n_episodes + config.final_episodes)
        finalists = list(rescore(_candidates(study, config), lambda recipe: score(recipe, fresh)))
        verdict = log.close(finalists, config.recipe)
        log_report(run_id)
        chosen = {name: getattr(verdict.winner.recipe, name) for name in SEARCHED}
        result = estimate(verdict.winner.scores).percent()
        print(f"search {run_id}: {chosen}, {result} on fresh episodes of the search half; {verdict.sentence()}")
    return run_id


def _scores(
    finetuner: Finetuner, pool: EpisodePool, config: SearchConfig, recipe: FinetuneRecipe, indices: range
) -> Iterator[float]:
    from tl_core.episodes import sample_episode

    episodes = (sample_episode(pool, config.shape, config.seed, index) for index in indices)
    return (result.accuracy for result in finetuner.run_episodes(episodes, recipe))


def _candidates(study: optuna.Study, config: SearchConfig) -> list[tuple[FinetuneRecipe, float]]:
    """The base recipe, so that nothing worse can win unnoticed, and the best trials."""
    from tl_core.search import best_recipes

    ranked = best_recipes(study, len(study.trials))
    base = [pair for pair in ranked if pair[0] == config.recipe][:1]
    return base + [pair for pair in ranked if pair[0] != config.recipe][: config.n_finalists]


if __name__ == "__main__":
    run_command_line(SearchConfig, run)
