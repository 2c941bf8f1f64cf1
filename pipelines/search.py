"""Which learning rate, freezing depth and augmentation suit this target?

    mlflow run . -e search -P target=EuroSAT.zip -P backbone_run=<id of a pretrain run> -P n_trials=30

An Optuna study over episodes from the half of the target that `finetune` does not report on, or over other classes
altogether (`proxy`). Every trial is a nested run; trials that are clearly behind the best one on the same episodes are
stopped early. The best few and the base recipe are then scored on fresh episodes, because the best of many is partly
the luckiest; the best of these wins, if it is better than the base recipe beyond chance, and the base recipe stays
otherwise. At last both are scored once on the half that nothing was chosen on.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from pipelines.inputs.target import TargetConfig, open_target
from tl_core.errors import InputError
from tl_core.recipes.checks import check_range
from tl_core.recipes.engine import LOCAL, Engine
from tl_core.recipes.episode import OPEN_SHAPE, EpisodeShape

if TYPE_CHECKING:
    from pipelines.inputs.target import Target
    from tl_core.search.verdict import ScoreRecipe, Verdict
    from tl_core.search.workers import EpisodeScores


@dataclass(frozen=True, kw_only=True)
class SearchConfig(TargetConfig):
    """Which learning rate, freezing depth and augmentation suit this target? An Optuna study."""

    searched: str = "max_lr+freeze_depth+augment"
    """What is searched, joined by +: max_lr, freeze_depth, augment, test_views, head, l2, steps, optimizer,
    weight_decay, label_smoothing, objective, trained; the rest is the recipe's."""
    n_trials: int = 20
    """Trials that the study shall hold in the end, those of all processes that work on it together."""
    minutes: float = 0
    """After which no trial is started; 0 leaves it to n_trials."""
    workers: int = 0
    """Trials at a time; 0 is one per core. With one, the same command repeats the same trials exactly."""
    engine: Engine = LOCAL
    shape: EpisodeShape = OPEN_SHAPE
    n_episodes: int = 20
    """Episodes per trial, the same ones for every trial."""
    n_finalists: int = 3
    """Best trials that are scored once more, beside the base recipe, before one of them wins."""
    final_episodes: int = 40
    """Episodes for that, which no trial has seen."""
    report_episodes: int = 40
    """Episodes from the other half, on which the best and the base recipe are scored once, at the end; 0 is none."""
    proxy: str = ""
    """Data spec of other classes to search on in place of the target, whose labels are then not looked at."""
    shift: str = "none"
    """How the proxy's images are made to look like another domain: none, or colour, turn, resolution joined by +."""
    study: str = ""
    """Name of a study to continue, or to work on beside other processes; empty starts one named after the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("n_trials", self.n_trials, 1, 1_000_000)
        check_range("minutes", self.minutes, 0, 1_000_000)
        check_range("workers", self.workers, 0, 4096)
        check_range("n_episodes", self.n_episodes, 1, 1_000_000)
        check_range("n_finalists", self.n_finalists, 1, 1_000_000)
        check_range("final_episodes", self.final_episodes, 2, 1_000_000)
        check_range("report_episodes", self.report_episodes, 0, 1_000_000)
        if self.report_episodes == 1:
            raise InputError("report_episodes is 1; allowed is 0 (none), or 2 or more")
        if self.recipe.max_lr == "auto":
            raise InputError("max_lr is auto; allowed is a number: the rate that the search starts from")
        if self.shift != "none" and not self.proxy:
            raise InputError(f"shift is {self.shift}, but it changes the proxy's images, and no proxy is given")


def run(config: SearchConfig) -> str:
    """Search and log; returns the run's id, whose artifact `recipe.json` is what `finetune` and `fit` load."""
    import mlflow
    import numpy as np
    from tqdm import tqdm

    from pipelines.inputs.names import network_name
    from pipelines.inputs.provenance import log_seen_images
    from pipelines.reports.log import log_report
    from pipelines.results.trial_log import TrialLog, study_storage
    from pipelines.store.runs import tracked_run
    from tl_core.data.episodes import build_pool, check_pool, fit_shape
    from tl_core.scoring.episodes import estimate
    from tl_core.search.space import parse_space
    from tl_core.search.studies import build_study
    from tl_core.search.trials import Budget, find_candidates, prepare_study, wants_more
    from tl_core.search.verdict import crown, rescore
    from tl_core.search.workers import EpisodeScores, Search

    space = parse_space(config.searched)
    with tracked_run("search", config) as run_id:
        budget = Budget(config.n_trials, time.time() + 60 * config.minutes if config.minutes else float("inf"))
        opened = _open_searched(config)
        pool = build_pool(opened.dataset, "all" if config.proxy else "search")
        log_seen_images(opened.dataset, np.concatenate(pool.rows_by_class))  # what it draws from, and nothing else
        shape = fit_shape(pool, config.shape)
        check_pool(pool, shape)
        study = build_study(config.study or f"search-{run_id}", study_storage(), config.seed)
        mlflow.set_tags({"study": study.study_name, "pool": pool.fingerprint})
        network = network_name(config.backbone_run, opened.spec, config.seed)
        setting = {"pool": pool.fingerprint, "network": network, "n_episodes": config.n_episodes, "seed": config.seed}
        space = prepare_study(study, space, config.recipe, setting | asdict(shape))
        episodes = EpisodeScores(pool, shape, config.seed, range(config.n_episodes))
        search = Search(study.study_name, study_storage(), config.seed, space, config.recipe, episodes, budget)
        log = TrialLog(study, config.n_episodes)
        with tqdm(total=config.n_trials, initial=log.n_before, desc="search", unit="trial", disable=None) as progress:
            for trial in search.run(opened.finetuner, study, config.workers, config.engine):
                log.add(trial)
                progress.update()
        if wants_more(study, replace(budget, deadline=float("inf"))):
            print(f"search {run_id}: {config.minutes:g} minutes are over; study={study.study_name} would go on")
        fresh = replace(episodes, indices=range(config.n_episodes, config.n_episodes + config.final_episodes))
        candidates = find_candidates(study, config.recipe, config.n_finalists)
        finalists = list(rescore(candidates, _scorer(fresh, opened, config)))
        verdict = crown(finalists, config.recipe)
        log.close(finalists, verdict, _report(config, opened, verdict))
        log_report(run_id)
        chosen = {name: getattr(verdict.winner.recipe, name) for name in space.parameters}
        result = estimate(verdict.winner.scores).percent()
        print(f"search {run_id}: {chosen}, {result} on fresh episodes of what it searched on; {verdict.sentence()}")
    return run_id


def _open_searched(config: SearchConfig) -> Target:
    """The network on the images that the search may see."""
    from pipelines.inputs.target import Target
    from tl_core.data.shifts import parse_shifts, shift_images
    from tl_core.fewshot.finetuner import Finetuner

    if not config.proxy:
        return open_target(config)
    parse_shifts(config.shift)
    opened = open_target(replace(config, target=config.proxy), "proxy")
    dataset = shift_images(opened.dataset, config.shift, config.seed)
    tuner = opened.finetuner
    return Target(opened.spec, dataset, Finetuner(tuner.backbone, tuner.spec, dataset, tuner.device))


def _report(config: SearchConfig, opened: Target, verdict: Verdict) -> Verdict | None:
    """The base recipe and the best one on the half of the target that nothing was chosen on; None if not asked for."""
    from tl_core.data.episodes import build_pool, check_pool, fit_shape
    from tl_core.search.workers import EpisodeScores

    if not config.report_episodes:
        return None
    target = open_target(config) if config.proxy else opened
    pool = build_pool(target.dataset, "report")
    shape = fit_shape(pool, config.shape)
    check_pool(pool, shape)
    episodes = EpisodeScores(pool, shape, config.seed, range(config.report_episodes))
    return verdict.scored_again(_scorer(episodes, target, config))


def _scorer(episodes: EpisodeScores, target: Target, config: SearchConfig) -> ScoreRecipe:
    return partial(episodes.score, target.finetuner, n_workers=config.workers, engine=config.engine)


if __name__ == "__main__":
    run_command_line(SearchConfig, run)
