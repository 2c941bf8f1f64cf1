"""The objective of one trial: suggest a recipe, score it on the episodes, stop early where it is behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tl_core.errors import InputError
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.search.space import SearchSpace

ScoreRecipe = Callable[[FinetuneRecipe], Iterable[float]]
"""From a recipe to its accuracy on each of some episodes, lazily: what is not asked for is not computed."""

RECIPE, REASON, _SURPLUS, COPY = "recipe", "reason", "surplus", "copy_of"


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
            raise InputError(f"expected n_trials of 1 or more, got {self.n_trials}")


def counts_towards_budget(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards the budget: not if its process was lost, nor if it was one too many."""
    lost = trial.state == TrialState.FAIL and REASON not in trial.user_attrs
    return not lost and _SURPLUS not in trial.user_attrs


def scores_of(trial: FrozenTrial) -> tuple[float, ...]:
    """Return a trial's accuracy on each of its episodes, in their order."""
    return tuple(round(score, 8) for _, score in sorted(trial.intermediate_values.items()))


class SurplusError(Exception):
    """Two processes began the last trial; the later one is dropped."""


class TrialObjective:
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
        before = [
            t for t in trial.study.get_trials(deepcopy=False) if t.number < trial.number and counts_towards_budget(t)
        ]
        if len(before) >= self._budget.n_trials:
            trial.set_user_attr(_SURPLUS, True)
            raise SurplusError
        self._number = trial.number
        try:
            self._recipe = self._space.suggest_recipe(trial, self._base)
            trial.set_user_attr(RECIPE, asdict(self._recipe))
            known = self._twin(trial)
            if known is not None:
                trial.set_user_attr(COPY, known.number)
            for step, score in enumerate(scores_of(known) if known else self._score_recipe(self._recipe)):
                self._scores.append(score)
                trial.report(score + _tie_breaker(trial.number, step), step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            if known is not None and known.state == TrialState.PRUNED:
                raise optuna.TrialPruned
        except InputError as error:
            trial.set_user_attr(REASON, str(error))
            raise
        return float(np.mean(self._scores))

    def _twin(self, trial: optuna.Trial) -> FrozenTrial | None:
        """A trial with the same recipe that came to its end or was stopped."""
        done = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        recipe = asdict(self._recipe)
        return next((t for t in done if t.user_attrs.get(RECIPE) == recipe), None)

    def was_lost(self, study: optuna.Study) -> bool:
        """Return whether others have given it up and taken it over."""
        return self._number >= 0 and not counts_towards_budget(self._stored(study))

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
            stored.user_attrs.get(REASON, ""),
            stored.user_attrs.get(COPY),
        )


def _tie_breaker(number: int, step: int) -> float:
    """A billionth, up or down: accuracies tie often, and the test's exact distribution with ties takes seconds."""
    return float(np.random.default_rng([number, step]).uniform(-1e-9, 1e-9))
