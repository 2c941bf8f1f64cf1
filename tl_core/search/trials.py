"""The search for a fine-tuning recipe: Optuna proposes, paired episodes judge.

Every trial is scored on the same episodes in the same order, so that a trial which is clearly behind the best
one can be stopped early (Wilcoxon signed-rank test on the paired scores). A stopped trial is never the winner.
Any number of processes, here and elsewhere, may work on one study: its storage holds all that they share.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tl_core.errors import InputError
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.search.space import SearchSpace
from tl_core.search.studies import LAID_DOWN, check_study_settings
from tl_core.search.verdict import ScoreRecipe
from tl_core.training.loop import TrainingDivergedError

_RECIPE, _REASON, _SURPLUS, _COPY = "recipe", "reason", "surplus", "copy_of"
_POLL = 0.5


@dataclass(frozen=True)
class TrialResult:
    """One finished trial.

    Attributes:
        scores: accuracy of each episode that was spent on it, or on the trial of which it is a copy.
        state: "complete", "pruned" (stopped early) or "failed" (`reason` says how).
        start, end: seconds since the epoch.
    """

    number: int
    recipe: FinetuneRecipe
    scores: tuple[float, ...]
    state: str
    start: float
    end: float
    reason: str = ""
    copy_of: int | None = None
    """An earlier trial with the very same recipe, whose scores are taken: in a conditional space that happens."""


@dataclass(frozen=True)
class Budget:
    """Budget of a study.

    Attributes:
        n_trials: finished trials, those of all processes together.
        deadline: seconds since the epoch after which no trial starts.
    """

    n_trials: int
    deadline: float = float("inf")

    def __post_init__(self) -> None:
        if self.n_trials < 1:
            raise InputError(f"n_trials is {self.n_trials}; allowed is 1 or more")


def prepare_study(
    study: optuna.Study, space: SearchSpace, base: FinetuneRecipe, setting: Mapping[str, object]
) -> SearchSpace:
    """Make a new study ready, or see that a begun one is the same search; gives the space that its trials use.

    The base recipe is the first trial, so that nothing worse can win; recipes of the literature follow, between others.

    Args:
        setting: whatever scores depend on beside the recipe, such as the episodes and the network; JSON values.

    Raises:
        InputError: the study was begun in another setting, space or base.
    """
    space = space.including(base)
    setting = {**setting, "base": asdict(base), "space": space.describe()}
    check_study_settings(study, setting)
    study.set_user_attr(LAID_DOWN, [space.point(recipe) for recipe in [base, *space.literature(base)]])
    return space


def run_trials(
    study: optuna.Study, space: SearchSpace, base: FinetuneRecipe, score_recipe: ScoreRecipe, budget: Budget
) -> Iterator[TrialResult]:
    """Run trials of a prepared study until its budget is spent, by this process and others."""
    while wants_more(study, budget):
        result = run_trial(study, space, base, score_recipe, budget)
        if result is not None:
            yield result


def wants_more(study: optuna.Study, budget: Budget) -> bool:
    """Return whether trials are missing, some of which others may be running at the moment."""
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and _counts(trial)]
    return len(finished) < budget.n_trials and time.time() < budget.deadline


def run_trial(
    study: optuna.Study, space: SearchSpace, base: FinetuneRecipe, score_recipe: ScoreRecipe, budget: Budget
) -> TrialResult | None:
    """Run one trial; None if others are running all that are missing, or it was taken from this process meanwhile."""
    taken = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING and _counts(t)]
    if len(taken) >= budget.n_trials:
        time.sleep(_POLL)  # one of them may still be lost
        _fail_stale_trials(study)
        return None
    work = _Work(space, base, score_recipe, budget)
    try:
        study.optimize(work, n_trials=1, catch=(TrainingDivergedError, InputError, _SurplusError))
    except Exception as error:
        # The result of a trial that was declared dead is refused by three kinds of errors; an own one must be heard.
        if error is work.error or not work.was_lost(study):
            raise
        return None  # without a sign of life for too long, it was given to somebody else
    return work.result(study)


def _fail_stale_trials(study: optuna.Study) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def _counts(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards the budget: not if its process was lost, nor if it was one too many."""
    lost = trial.state == TrialState.FAIL and _REASON not in trial.user_attrs
    return not lost and _SURPLUS not in trial.user_attrs


class _SurplusError(Exception):
    """Two processes began the last trial; the later one is dropped."""


class _Work:
    """One trial's objective, which remembers what it did."""

    def __init__(self, space: SearchSpace, base: FinetuneRecipe, score_recipe: ScoreRecipe, budget: Budget) -> None:
        self._space, self._base, self._score_recipe, self._budget = space, base, score_recipe, budget
        self._scores: list[float] = []
        self._recipe = base
        self._number = -1
        self.error: Exception | None = None

    def __call__(self, trial: optuna.Trial) -> float:
        """Mean accuracy over all episodes; raises `TrialPruned` before that if the trial is clearly behind."""
        try:
            return self._mean(trial)
        except Exception as error:
            self.error = error
            raise

    def _mean(self, trial: optuna.Trial) -> float:
        before = [t for t in trial.study.get_trials(deepcopy=False) if t.number < trial.number and _counts(t)]
        if len(before) >= self._budget.n_trials:
            trial.set_user_attr(_SURPLUS, True)
            raise _SurplusError
        self._number = trial.number
        try:
            self._recipe = self._space.suggest_recipe(trial, self._base)
            trial.set_user_attr(_RECIPE, asdict(self._recipe))
            known = self._twin(trial)
            if known is not None:
                trial.set_user_attr(_COPY, known.number)
            for step, score in enumerate(_scores_of(known) if known else self._score_recipe(self._recipe)):
                self._scores.append(score)
                trial.report(score + _tie_breaker(trial.number, step), step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            if known is not None and known.state == TrialState.PRUNED:
                raise optuna.TrialPruned
        except (TrainingDivergedError, InputError) as error:
            trial.set_user_attr(_REASON, str(error))
            raise
        return float(np.mean(self._scores))

    def _twin(self, trial: optuna.Trial) -> FrozenTrial | None:
        """A trial with the same recipe that came to its end or was stopped."""
        done = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        recipe = asdict(self._recipe)
        return next((t for t in done if t.user_attrs.get(_RECIPE) == recipe), None)

    def was_lost(self, study: optuna.Study) -> bool:
        """Return whether others have given it up and taken it over."""
        return self._number >= 0 and not _counts(self._stored(study))

    def _stored(self, study: optuna.Study) -> FrozenTrial:
        return study.get_trials(deepcopy=False)[self._number]

    def result(self, study: optuna.Study) -> TrialResult | None:
        """Return the trial's result; None if it was one too many."""
        if self._number < 0:
            return None
        stored = self._stored(study)
        assert stored.datetime_start is not None
        assert stored.datetime_complete is not None
        state = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}[stored.state]
        return TrialResult(
            self._number,
            self._recipe,
            tuple(self._scores),
            state,
            stored.datetime_start.timestamp(),
            stored.datetime_complete.timestamp(),
            stored.user_attrs.get(_REASON, ""),
            stored.user_attrs.get(_COPY),
        )


def _tie_breaker(number: int, step: int) -> float:
    """A billionth, up or down: accuracies tie often, and the test's exact distribution with ties takes seconds."""
    return float(np.random.default_rng([number, step]).uniform(-1e-9, 1e-9))


def best_recipes(study: optuna.Study, n: int) -> list[tuple[FinetuneRecipe, tuple[float, ...]]]:
    """The recipes of the n best trials among those scored on every episode, best first, with their scores.

    Raises:
        InputError: there is no such trial.
    """
    trials = study.get_trials(deepcopy=False)
    # Of the complete trials: pruned ones do not count.
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        reasons = [trial.user_attrs[_REASON] for trial in trials if _REASON in trial.user_attrs]
        why = f" (the first failure: {reasons[0]})" if reasons else ""
        raise InputError(f"study {study.study_name} has no complete trial{why}; raise n_trials")
    best = sorted(complete, key=lambda trial: (-float(trial.value or 0.0), trial.number))
    unique: dict[FinetuneRecipe, tuple[float, ...]] = {}
    for trial in best:
        unique.setdefault(FinetuneRecipe(**trial.user_attrs[_RECIPE]), _scores_of(trial))
    return list(unique.items())[:n]


def find_candidates(
    study: optuna.Study, base: FinetuneRecipe, n: int
) -> list[tuple[FinetuneRecipe, tuple[float, ...]]]:
    """The base recipe, so that nothing worse can win unnoticed, and the n best others, with their scores."""
    ranked = dict(best_recipes(study, len(study.trials)))
    of_base = ranked.pop(base, ())
    return [(base, of_base), *list(ranked.items())[:n]]


def _scores_of(trial: FrozenTrial) -> tuple[float, ...]:
    return tuple(round(score, 8) for _, score in sorted(trial.intermediate_values.items()))


def count_episodes(study: optuna.Study) -> int:
    """Episodes that were spent on the trials of a study, those of lost trials among them and of copies not."""
    trials = (trial for trial in study.get_trials(deepcopy=False) if _COPY not in trial.user_attrs)
    return sum(len(trial.intermediate_values) for trial in trials)
