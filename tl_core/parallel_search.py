"""Trials of one search in several processes, each with a network of its own; the study's storage is all they share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
from joblib import Parallel, delayed

from tl_core.classifier import save_backbone
from tl_core.datasets import ImageDataset
from tl_core.episodes import EpisodePool, sample_episode
from tl_core.finetune import Finetuner
from tl_core.parallel import held_finetuner, run_episodes
from tl_core.recipes import EpisodeShape, FinetuneRecipe
from tl_core.search import Budget, TrialResult, build_study, run_trial, run_trials, wants_more
from tl_core.search_space import SearchSpace


@dataclass(frozen=True)
class EpisodeScores:
    """From a recipe to its accuracy on some episodes, always the same ones."""

    pool: EpisodePool
    shape: EpisodeShape
    seed: int
    indices: range

    def score(self, finetuner: Finetuner, recipe: FinetuneRecipe, n_workers: int = 1) -> Iterator[float]:
        """Accuracies; in one process lazily: what is not asked for is not computed, unless many are solved at once."""
        episodes = (sample_episode(self.pool, self.shape, self.seed, index) for index in self.indices)
        return (result.accuracy for result in run_episodes(finetuner, episodes, recipe, n_workers))


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

    def run(self, finetuner: Finetuner, study: optuna.Study, n_workers: int) -> Iterator[TrialResult]:
        """Run trials until the budget is spent, in the order in which they end; an accelerator is not shared."""
        if n_workers == 1 or finetuner.device.type != "cpu":
            score = partial(self.episodes.score, finetuner)
            yield from run_trials(study, self.space, self.base, score, self.budget)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_backbone(finetuner.backbone, finetuner.spec, Path(folder))
            dataset = replace(finetuner.dataset, file_names=(), content_hashes=(), unreadable=())
            processes = Parallel(n_workers, return_as="generator_unordered", pre_dispatch=n_workers)
            # Drawn one by one as processes become free, so that the budget is asked each time.
            tasks = iter(lambda: wants_more(study, self.budget), False)
            for result in processes(delayed(_run_one)(self, folder, dataset) for _ in tasks):
                if result is not None:
                    yield result


def _run_one(search: Search, folder: str, dataset: ImageDataset) -> TrialResult | None:
    finetuner = held_finetuner(folder, dataset)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = build_study(search.study, search.storage, search.seed, prune=search.prune)
    return run_trial(study, search.space, search.base, partial(search.episodes.score, finetuner), search.budget)
