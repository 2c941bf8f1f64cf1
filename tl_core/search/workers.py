"""Trials of one search in several processes, each with a network of its own; the study's storage is all they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import optuna

from tl_core.compute.engines import open_workers
from tl_core.data.episodes import EpisodePool, sample_episode
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.parallel import Package, packed, run_episodes, unpacked
from tl_core.fewshot.results import EpisodeResult
from tl_core.recipes.engine import LOCAL, Engine
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.search.objective import Budget, TrialResult
from tl_core.search.space import SearchSpace
from tl_core.search.storages import storage_troubles
from tl_core.search.studies import build_study
from tl_core.search.trials import run_trial, run_trials, wants_more


@dataclass(frozen=True)
class EpisodeScores:
    """From a recipe to its accuracy on some episodes, always the same ones."""

    pool: EpisodePool
    shape: EpisodeShape
    seed: int
    indices: range

    def score(
        self, finetuner: Finetuner, recipe: FinetuneRecipe, n_workers: int = 1, engine: Engine = LOCAL
    ) -> Iterator[float]:
        """Accuracies; in one process lazily: what is not asked for is not computed, unless many are solved at once."""
        return (result.accuracy for result in self.run(finetuner, recipe, n_workers, engine))

    def run(
        self, finetuner: Finetuner, recipe: FinetuneRecipe, n_workers: int = 1, engine: Engine = LOCAL
    ) -> Iterator[EpisodeResult]:
        """Results, as lazily."""
        episodes = (sample_episode(self.pool, self.shape, self.seed, index) for index in self.indices)
        return run_episodes(finetuner, episodes, recipe, n_workers, engine)


@dataclass(frozen=True)
class Search:
    """A prepared study, and what its trials are scored on.

    Attributes:
        storage: as `build_study` takes it; with several processes not None.
        seed: of the proposals.
    """

    study: str
    storage: str | None
    seed: int
    space: SearchSpace
    base: FinetuneRecipe
    episodes: EpisodeScores
    budget: Budget
    prune: bool = True

    def run(
        self, finetuner: Finetuner, study: optuna.Study, n_workers: int, engine: Engine = LOCAL
    ) -> Iterator[TrialResult]:
        """Run trials until the budget is spent; an accelerator is not shared.

        Args:
            n_workers: processes; 0 is one per core of the machine or the cluster, which must all reach the storage.
        """
        with storage_troubles(self.storage):
            yield from self._run(finetuner, study, n_workers, engine)

    def _run(self, finetuner: Finetuner, study: optuna.Study, n_workers: int, engine: Engine) -> Iterator[TrialResult]:
        if engine == LOCAL and (n_workers == 1 or finetuner.device.type != "cpu"):
            score = partial(self.episodes.score, finetuner)
            yield from run_trials(study, self.space, self.base, score, self.budget)
            return
        with packed(finetuner, engine) as package, open_workers(engine, n_workers, (self, package)) as workers:
            # Drawn as processes become free, so that the budget is asked each time.
            calls = (() for _ in iter(lambda: wants_more(study, self.budget), False))
            yield from (result for result in workers.run(_run_one, calls) if result is not None)


@lru_cache(maxsize=1)
def _opened(name: str, storage: str | None, seed: int, prune: bool) -> optuna.Study:
    """A worker's own view of the study, opened once and not for every trial."""
    return build_study(name, storage, seed, prune=prune)


def _run_one(work: tuple[Search, Package]) -> TrialResult | None:
    search, package = work
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _opened(search.study, search.storage, search.seed, search.prune)
    with unpacked(package) as finetuner:
        score = partial(search.episodes.score, finetuner)
        return run_trial(study, search.space, search.base, score, search.budget)
