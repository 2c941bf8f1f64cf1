"""Hyper-parameter search: which learning rate, freezing depth and augmentation suit this target?

    mlflow run . -e search -P target=EuroSAT.zip -P weights=<pretrain run> -P n_trials=30

An Optuna study over episodes from the half of the target that `finetune` does not report on. Every trial is a nested
run; trials that are clearly behind the best one on the same episodes are stopped early. The best few and the base
recipe are then scored on fresh episodes, because the best of many is partly the luckiest; the best of these wins, if it
is better than the base recipe beyond chance, and the base recipe stays otherwise. At last both are scored once on the
half that nothing was chosen on.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import TargetData
from pipelines.configs.episodes import SearchEpisodes
from pipelines.configs.fields import flat_params, with_values
from pipelines.configs.network import FewShotNetwork
from pipelines.configs.where import SharedWhere
from tl_core.errors import InputError
from tl_core.recipes.checks import check_range, check_seed
from tl_core.recipes.engine import LOCAL, Engine
from tl_core.recipes.episode import OPEN_SHAPE, EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe

if TYPE_CHECKING:
    from optuna import Study

    from pipelines.inputs.target import Target
    from pipelines.results.trial_log import TrialLog
    from tl_core.search.verdict import Finalist, RunRecipe, Verdict
    from tl_core.search.workers import EpisodeScores, Search


MOST_FINALISTS = 3
"""Best trials that are scored once more, beside the base recipe, before one of them wins; fewer of few trials."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Hyper-parameter search on this target, an Optuna study."""

    data: TargetData = field(default_factory=TargetData)
    network: FewShotNetwork
    searched: str = "max_lr+freeze_depth+augment"
    """Hyper-parameters that are searched, joined by +: max_lr, freeze_depth, augment, test_views, head, l2, steps,
    optimizer, weight_decay, label_smoothing; the rest is the recipe's."""
    n_trials: int = 20
    """Trials that the study holds in the end, those of all processes that work on it together."""
    minutes: float = 0
    """Minutes after which no trial is started; 0 leaves it to n_trials."""
    study: str = ""
    """Name of a study to continue, or to work on beside other processes; empty starts one named after the run."""
    shape: EpisodeShape = OPEN_SHAPE
    episodes: SearchEpisodes = field(default_factory=SearchEpisodes)
    seed: int = 0
    """Seed of the episodes, the trials, the batches and views, and the weights of an untrained network."""
    recipe: FinetuneRecipe = field(default_factory=FinetuneRecipe)
    where: SharedWhere = field(default_factory=SharedWhere)
    engine: Engine = LOCAL

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_range("n_trials", self.n_trials, 1, 1_000_000)
        check_range("minutes", self.minutes, 0, 1_000_000)
        if self.recipe.max_lr == "auto":
            raise InputError("expected max_lr as a number, the rate that the search starts from, got auto")


def run(config: SearchConfig) -> str:
    """Search and log; returns the run's id, whose artifact `recipe.json` is what `finetune` and `fit` load."""
    import mlflow
    import numpy as np

    from pipelines.inputs.names import network_name
    from pipelines.inputs.provenance import log_seen_images
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.inputs.target import open_target
    from pipelines.reports.log import log_report
    from pipelines.reports.sections import say_search
    from pipelines.results.trial_log import TrialLog
    from pipelines.store.connection import study_storage
    from pipelines.store.params import log_params
    from pipelines.store.runs import rename_run, tracked_run
    from tl_core.data.episodes import build_pool, check_pool, fit_shape
    from tl_core.search.objective import Budget
    from tl_core.search.space import parse_space
    from tl_core.search.trials import prepare_study, wants_more
    from tl_core.search.workers import EpisodeScores, Search

    space = parse_space(config.searched)
    n_episodes = config.episodes.n_episodes
    with tracked_run("search", config, name := _run_name(config)) as run_id:
        budget = Budget(config.n_trials, time.time() + 60 * config.minutes if config.minutes else float("inf"))
        config = with_run_ids(config, weights="pretrain")
        rename_run(name, _run_name(config))
        opened = open_target(config)
        pool = build_pool(opened.dataset, "search")
        log_seen_images(opened.dataset, np.concatenate(pool.rows_by_class))  # what it draws from, and nothing else
        shape = fit_shape(pool, config.shape)
        check_pool(pool, shape)
        study = _open_study(config.study or f"search-{run_id}", config.seed)
        mlflow.set_tags({"study": study.study_name, "pool": pool.fingerprint})
        network = network_name(config.network.weights, opened.spec, config.seed)
        setting = {"pool": pool.fingerprint, "network": network, "n_episodes": n_episodes, "seed": config.seed}
        space = prepare_study(study, space, config.recipe, setting | asdict(shape))
        log_params(flat_params(with_values(config, shape=shape, study=study.study_name, **opened.used())))
        episodes = EpisodeScores(pool, shape, config.seed, range(n_episodes))
        search = Search(study.study_name, study_storage(), config.seed, space, config.recipe, episodes, budget)
        log = TrialLog(study, n_episodes)
        _run_trials(search, study, log, opened, config)
        if wants_more(study, replace(budget, deadline=float("inf"))):
            print(f"search {run_id}: {config.minutes:g} minutes are over; study={study.study_name} would go on")
        finalists, verdict = _score_again(study, episodes, opened, config)
        reported = _report(config, opened, verdict)
        log.close(finalists, verdict, reported)
        mlflow.set_tags(_say(verdict, reported))
        log_report(run_id)
        print(f"search {run_id}: {say_search(mlflow.MlflowClient().get_run(run_id))}")
    return run_id


def _run_name(config: SearchConfig) -> str:
    from pipelines.inputs.names import run_name

    network = config.network
    return run_name("search", config.data.target, network.weights, network.backbone)


def _open_study(name: str, seed: int) -> Study:
    import optuna

    from pipelines.store.connection import study_storage
    from tl_core.search.studies import build_study

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return build_study(name, study_storage(), seed)


def _run_trials(search: Search, study: Study, log: TrialLog, opened: Target, config: SearchConfig) -> None:
    """Run trials until the budget is spent, each recorded as a nested run."""
    from tqdm import tqdm

    with tqdm(total=config.n_trials, initial=log.n_before, desc="search", unit="trial", disable=None) as progress:
        for trial in search.run(opened.finetuner, study, config.where.workers, config.engine):
            log.add(trial)
            progress.update()


def _score_again(
    study: Study, episodes: EpisodeScores, opened: Target, config: SearchConfig
) -> tuple[list[Finalist], Verdict]:
    """Score the best few and the base recipe on episodes that no trial has seen."""
    from tl_core.search.trials import find_candidates
    from tl_core.search.verdict import rescore, select_winner

    first = config.episodes.n_episodes
    fresh = replace(episodes, indices=range(first, first + config.episodes.final_episodes))
    best_few = find_candidates(study, config.recipe, min(MOST_FINALISTS, 1 + config.n_trials // 10))
    finalists = list(rescore(best_few, _scorer(fresh, opened, config)))
    return finalists, select_winner(finalists, config.recipe, episodes.pool.alike)


def _say(verdict: Verdict, reported: Verdict | None) -> dict[str, str]:
    """Tags that say who wins."""
    from pipelines.inputs.artifacts import REPORTED_VERDICT, VERDICT
    from pipelines.reports.words import say_gain, say_winner

    if reported is None or reported.best is reported.base:
        return {VERDICT: say_winner(verdict)}
    return {
        VERDICT: say_winner(verdict),
        REPORTED_VERDICT: say_gain(reported.gain_on_images, "the default recipe"),
    }


def _report(config: SearchConfig, opened: Target, verdict: Verdict) -> Verdict | None:
    """The base recipe and the best one on the half of the target that nothing was chosen on; None if not asked for."""
    from tl_core.data.episodes import build_pool, check_pool, fit_shape
    from tl_core.search.workers import EpisodeScores

    if not config.episodes.report_episodes:
        return None
    pool = build_pool(opened.dataset, "report")
    shape = fit_shape(pool, config.shape)
    check_pool(pool, shape)
    episodes = EpisodeScores(pool, shape, config.seed, range(config.episodes.report_episodes))
    return verdict.scored_again(_scorer(episodes, opened, config))


def _scorer(episodes: EpisodeScores, target: Target, config: SearchConfig) -> RunRecipe:
    return partial(episodes.run, target.finetuner, n_workers=config.where.workers, engine=config.engine)


if __name__ == "__main__":
    run_command_line(SearchConfig, run)
