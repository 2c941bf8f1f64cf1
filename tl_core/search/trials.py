"""The search for a fine-tuning recipe: Optuna proposes, paired episodes judge.

Every trial is scored on the same episodes in the same order, so that a trial which is clearly behind the best
one can be stopped early (Wilcoxon signed-rank test on the paired scores). A stopped trial is never the winner.
Any number of processes, here and elsewhere, may work on one study: its storage holds all that they share.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import optuna
from optuna.trial import TrialState

from tl_core.errors import InputError
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.search.objective import (
    COPY,
    REASON,
    RECIPE,
    Budget,
    ScoreRecipe,
    SurplusError,
    TrialObjective,
    TrialResult,
    counts_towards_budget,
    scores_of,
)
from tl_core.search.space import SearchSpace
from tl_core.search.studies import LAID_DOWN, check_study_settings

_POLL = 0.5


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
    return count_trials(study) < budget.n_trials and time.time() < budget.deadline


def run_trial(
    study: optuna.Study, space: SearchSpace, base: FinetuneRecipe, score_recipe: ScoreRecipe, budget: Budget
) -> TrialResult | None:
    """Run one trial; None if others are running all that are missing, or it was taken from this process meanwhile."""
    taken = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING and counts_towards_budget(t)]
    if len(taken) >= budget.n_trials:
        time.sleep(_POLL)  # one of them may still be lost
        _fail_stale_trials(study)
        return None
    work = TrialObjective(space, base, score_recipe, budget)
    try:
        study.optimize(work, n_trials=1, catch=(InputError, SurplusError))
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


def best_recipes(study: optuna.Study, n: int) -> list[tuple[FinetuneRecipe, tuple[float, ...]]]:
    """The recipes of the n best trials among those scored on every episode, best first, with their scores.

    Raises:
        InputError: there is no such trial.
    """
    trials = study.get_trials(deepcopy=False)
    # Of the complete trials: pruned ones do not count.
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
        why = f" (the first failure: {reasons[0]})" if reasons else ""
        raise InputError(f"study {study.study_name} has no complete trial{why}; raise n_trials")
    best = sorted(complete, key=lambda trial: (-float(trial.value or 0.0), trial.number))
    unique: dict[FinetuneRecipe, tuple[float, ...]] = {}
    for trial in best:
        unique.setdefault(FinetuneRecipe(**trial.user_attrs[RECIPE]), scores_of(trial))
    return list(unique.items())[:n]


def find_candidates(
    study: optuna.Study, base: FinetuneRecipe, n: int
) -> list[tuple[FinetuneRecipe, tuple[float, ...]]]:
    """The base recipe, so that nothing worse can win unnoticed, and the n best others, with their scores."""
    ranked = dict(best_recipes(study, len(study.trials)))
    of_base = ranked.pop(base, ())
    return [(base, of_base), *list(ranked.items())[:n]]


def count_trials(study: optuna.Study) -> int:
    """Trials of a study that came to an end and count towards its budget."""
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.is_finished() and counts_towards_budget(trial) for trial in trials)


def count_episodes(study: optuna.Study) -> int:
    """Episodes that were spent on the trials of a study, those of lost trials among them and of copies not."""
    trials = (trial for trial in study.get_trials(deepcopy=False) if COPY not in trial.user_attrs)
    return sum(len(trial.intermediate_values) for trial in trials)
