"""The search for a fine-tuning recipe: Optuna proposes, paired episodes judge.

Every trial is scored on the same episodes in the same order, so that a trial which is clearly behind the best
one can be stopped early (Wilcoxon signed-rank test on the paired scores). A stopped trial is never the winner.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import optuna
from optuna.trial import TrialState

from tl_core.errors import InputError
from tl_core.recipes import FinetuneRecipe, parse_augment
from tl_core.scoring import Estimate, paired_difference
from tl_core.training import TrainingDivergedError

ScoreRecipe = Callable[[FinetuneRecipe], Iterable[float]]
"""From a recipe to its accuracy on each search episode, lazily: what is not asked for is not computed."""

RECIPE_ATTRIBUTE, SETTING_ATTRIBUTE = "recipe", "setting"
SEARCHED = ("max_lr", "freeze_depth", "augment")


@dataclass(frozen=True)
class SearchSpace:
    """What a trial may choose; everything else comes from the base recipe."""

    max_lr: tuple[float, float] = (1e-5, 1e-1)
    freeze_depth: tuple[float, float] = (0.0, 1.0)
    augments: tuple[str, ...] = ("none", "flip", "dihedral", "crop")

    def __post_init__(self) -> None:
        if not self.augments:
            raise InputError("the search space has no augmentation; give at least one, such as none")
        for augment in self.augments:
            parse_augment(augment)
        for low, high in (self.max_lr, self.freeze_depth):
            if not low <= high:
                raise InputError(f"a search range from {low:g} to {high:g} is empty; give the lower end first")

    def suggest_recipe(self, trial: optuna.Trial, base: FinetuneRecipe) -> FinetuneRecipe:
        """The base recipe with this trial's choices."""
        return replace(
            base,
            max_lr=trial.suggest_float("max_lr", *self.max_lr, log=True),
            freeze_depth=trial.suggest_float("freeze_depth", *self.freeze_depth),
            augment=trial.suggest_categorical("augment", self.augments),
        )


@dataclass(frozen=True)
class TrialResult:
    """One finished trial.

    Attributes:
        scores: accuracy of each episode that was spent on it.
        state: "complete", "pruned" (stopped early) or "failed" (diverged; `reason` says how).
    """

    number: int
    recipe: FinetuneRecipe
    scores: tuple[float, ...]
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Finalist:
    """A recipe that was scored twice.

    Attributes:
        search_accuracy: mean over the search's episodes, by which it was chosen: too high on average.
        scores: accuracy on each fresh episode.
    """

    recipe: FinetuneRecipe
    search_accuracy: float
    scores: tuple[float, ...]


def build_study(name: str, storage: str | None, seed: int) -> optuna.Study:
    """Create a study, or open the one of this name, with the sampler and pruner of this search.

    Resuming with the same sampler seed would propose the first points again: the seed moves with the trials done.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=4)
    study = optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True, pruner=pruner
    )
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=8)
    return study


def run_trials(
    study: optuna.Study, space: SearchSpace, base: FinetuneRecipe, score_recipe: ScoreRecipe, n_trials: int
) -> Iterator[TrialResult]:
    """Run trials until the study holds `n_trials`; the base recipe is the first one, so nothing worse can win."""
    if n_trials < 1:
        raise InputError(f"n_trials is {n_trials}; allowed is 1 or more")
    space = _space_with(space, base)
    _check_same_space(study, space)
    first = {name: asdict(base)[name] for name in SEARCHED}
    # A killed search may have left its first trial unfinished.
    if not any(t.state.is_finished() and t.params == first for t in study.trials):
        study.enqueue_trial(first)
    while len([t for t in study.trials if t.state.is_finished()]) < n_trials:
        yield _run_trial(study, study.ask(), space, base, score_recipe)


def check_setting(study: optuna.Study, setting: Mapping[str, object]) -> None:
    """Remember what a new study searches on, and refuse to continue one that searched on something else.

    Args:
        setting: whatever scores depend on beside the recipe, such as the episodes and the network; JSON values.

    Raises:
        InputError: the study was begun in another setting.
    """
    begun = study.user_attrs.get(SETTING_ATTRIBUTE)
    if begun is None:
        study.set_user_attr(SETTING_ATTRIBUTE, dict(setting))
        return
    for name, value in setting.items():
        if begun.get(name) != value:
            raise InputError(
                f"study {study.study_name} was begun with {name}={begun.get(name)}, not {value}; "
                "give another study name"
            )


def best_recipes(study: optuna.Study, n: int) -> list[tuple[FinetuneRecipe, float]]:
    """The recipes of the n best trials among those scored on every episode, best first, with their mean accuracy.

    Raises:
        InputError: there is no such trial.
    """
    # Of the complete trials: pruned ones do not count.
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    if not complete:
        raise InputError(f"study {study.study_name} has no complete trial; raise n_trials")
    best = sorted(complete, key=lambda trial: (-float(trial.value or 0.0), trial.number))[:n]
    return [(FinetuneRecipe(**trial.user_attrs[RECIPE_ATTRIBUTE]), float(trial.value or 0.0)) for trial in best]


def rescore(candidates: Iterable[tuple[FinetuneRecipe, float]], score_recipe: ScoreRecipe) -> Iterator[Finalist]:
    """Score candidates once more, on episodes that no trial has seen: the best of many is partly the luckiest."""
    for recipe, search_accuracy in candidates:
        yield Finalist(recipe, search_accuracy, tuple(score_recipe(recipe)))


@dataclass(frozen=True)
class Verdict:
    """What a search was worth.

    Attributes:
        best: the finalist with the highest mean on its fresh episodes.
        winner: `best`, if it is better than the base recipe beyond chance, and the base recipe otherwise.
        gain: best - base on the same fresh episodes; None if there is no base to compare with, or it is the best.
    """

    best: Finalist
    winner: Finalist
    gain: Estimate | None

    @property
    def optimism(self) -> float:
        """By how much the best one's mean over the search's episodes exceeded that over fresh ones."""
        return self.best.search_accuracy - float(np.mean(self.best.scores))

    def sentence(self) -> str:
        """In words."""
        if self.gain is None:
            return "nothing was better than the base recipe"
        gained = f"{100 * self.gain.mean:+.2f} +- {100 * self.gain.ci95:.2f} points over the base recipe"
        return gained if self.winner is self.best else f"{gained}: not told apart, so the base recipe stays"


def crown(finalists: Sequence[Finalist], base: FinetuneRecipe) -> Verdict:
    """Choose the finalist with the highest mean on its fresh episodes, unless its gain over the base may be chance."""
    best = max(finalists, key=lambda finalist: sum(finalist.scores) / len(finalist.scores))
    of_base = next((finalist for finalist in finalists if finalist.recipe == base), None)
    if of_base is None or of_base is best:
        return Verdict(best, best, None)
    gain = paired_difference(best.scores, of_base.scores)
    return Verdict(best, best if gain.low > 0 else of_base, gain)


def _space_with(space: SearchSpace, base: FinetuneRecipe) -> SearchSpace:
    """The space, widened where the base recipe lies outside: the first trial must be one of its points."""
    rates, depths = (*space.max_lr, float(base.max_lr)), (*space.freeze_depth, base.freeze_depth)
    augments = tuple(sorted({*space.augments, base.augment}))
    return SearchSpace((min(rates), max(rates)), (min(depths), max(depths)), augments)


def _check_same_space(study: optuna.Study, space: SearchSpace) -> None:
    """Optuna cannot add a category to a study that has begun."""
    for trial in study.trials:
        known = trial.distributions.get("augment")
        if isinstance(known, optuna.distributions.CategoricalDistribution) and set(known.choices) != set(
            space.augments
        ):
            raise InputError(
                f"study {study.study_name} was begun with augmentations {', '.join(map(str, known.choices))}, "
                f"not {', '.join(space.augments)}; give another study name"
            )


def _run_trial(
    study: optuna.Study, trial: optuna.Trial, space: SearchSpace, base: FinetuneRecipe, score_recipe: ScoreRecipe
) -> TrialResult:
    recipe = space.suggest_recipe(trial, base)
    trial.set_user_attr(RECIPE_ATTRIBUTE, asdict(recipe))
    scores: list[float] = []
    try:
        for step, score in enumerate(score_recipe(recipe)):
            scores.append(score)
            trial.report(score + _tie_breaker(trial.number, step), step)
            if trial.should_prune():
                return _finish(study, trial, recipe, scores, TrialState.PRUNED)
    except TrainingDivergedError as error:
        return _finish(study, trial, recipe, scores, TrialState.FAIL, str(error))
    return _finish(study, trial, recipe, scores, TrialState.COMPLETE)


def _tie_breaker(number: int, step: int) -> float:
    """A billionth, up or down: accuracies tie often, and the test's exact distribution with ties takes seconds."""
    return float(np.random.default_rng([number, step]).uniform(-1e-9, 1e-9))


def _finish(
    study: optuna.Study,
    trial: optuna.Trial,
    recipe: FinetuneRecipe,
    scores: list[float],
    state: TrialState,
    reason: str = "",
) -> TrialResult:
    # Optuna takes a value of complete trials only; a pruned one keeps the scores that it reported.
    study.tell(trial, sum(scores) / len(scores) if state == TrialState.COMPLETE else None, state)
    name = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}[state]
    return TrialResult(trial.number, recipe, tuple(scores), name, reason)
