"""The search for a recipe, on scores whose best recipe is known."""

from __future__ import annotations

import itertools
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from tl_core.errors import InputError
from tl_core.recipes import FinetuneRecipe
from tl_core.scoring import paired_difference
from tl_core.search import (
    Finalist,
    SearchSpace,
    TrialResult,
    best_recipes,
    build_study,
    crown,
    rescore,
    run_trials,
)
from tl_core.training import TrainingDivergedError

N_EPISODES = 12
BASE = FinetuneRecipe(max_lr=1e-4, freeze_depth=0.5, steps=7, head="cosine")
SPACE = SearchSpace()
EASE = np.random.default_rng(0).normal(0, 0.02, N_EPISODES)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def mean_score(recipe: FinetuneRecipe) -> float:
    """Known optimum: max_lr = 0.01, whatever the rest."""
    return 0.9 - 0.1 * abs(math.log10(recipe.max_lr) + 2)


def score_recipe(recipe: FinetuneRecipe) -> Iterator[float]:
    """Paired episodes: each is as hard for one recipe as for another, but for a little noise of the recipe's own."""
    noise = np.random.default_rng(int(recipe.max_lr * 1e12)).normal(0, 0.002, N_EPISODES)
    for ease, own in zip(EASE, noise, strict=True):
        yield mean_score(recipe) + float(ease + own)


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


@pytest.fixture(scope="module")
def study_of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a study of three trials."""
    folder = tmp_path_factory.mktemp("three")
    search(3, folder)
    return folder / "studies.db"


@pytest.fixture
def stopped(study_of_three: Path, tmp_path: Path) -> Path:
    """A folder of one's own with a study that was stopped after three trials."""
    shutil.copy(study_of_three, tmp_path)
    return tmp_path


def search(n_trials: int, folder: Path | None = None, seed: int = 0) -> tuple[optuna.Study, list[TrialResult]]:
    study = build_study("study", storage(folder) if folder else None, seed)
    return study, list(run_trials(study, SPACE, BASE, score_recipe, n_trials))


def points(study: optuna.Study) -> list[tuple[float, float]]:
    return [(trial.params["max_lr"], trial.params["freeze_depth"]) for trial in study.trials]


def test_the_search_finds_a_better_recipe_than_the_base() -> None:
    study, _ = search(25)
    recipe, accuracy = best_recipes(study, 1)[0]
    assert accuracy > mean_score(BASE) + 0.15
    assert 3e-3 < recipe.max_lr < 3e-2


def test_the_best_accuracy_is_the_mean_over_all_episodes_of_the_best_recipe() -> None:
    study, results = search(12)
    recipe, accuracy = best_recipes(study, 1)[0]
    assert accuracy == pytest.approx(np.mean(list(score_recipe(recipe))))
    assert accuracy == pytest.approx(max(np.mean(r.scores) for r in results if r.state == "complete"))


def test_what_is_not_searched_comes_from_the_base() -> None:
    study, results = search(8)
    assert all((result.recipe.steps, result.recipe.head) == (7, "cosine") for result in results)
    assert best_recipes(study, 1)[0][0].steps == 7


def test_the_first_trial_is_the_base_recipe() -> None:
    _, results = search(2)
    assert results[0].recipe == BASE
    assert results[0].state == "complete"
    assert results[1].recipe != BASE


def test_a_base_with_an_augmentation_outside_the_space_is_still_the_first_trial() -> None:
    base = replace(BASE, augment="crop+flip")
    study = build_study("study", None, 0)
    results = list(run_trials(study, SPACE, base, score_recipe, 3))
    assert results[0].recipe == base


@pytest.mark.parametrize("max_lr", [1e-6, 0.5])
def test_a_base_with_a_learning_rate_outside_the_space_is_still_the_first_trial(max_lr: float) -> None:
    base = replace(BASE, max_lr=max_lr)
    study = build_study("study", None, 0)
    results = list(run_trials(study, SPACE, base, score_recipe, 3))
    assert results[0].recipe == base


def test_every_proposal_lies_in_the_space() -> None:
    space = SearchSpace(max_lr=(1e-4, 1e-3), freeze_depth=(0.2, 0.6), augments=("none", "crop"))
    study = build_study("study", None, 0)
    for result in run_trials(study, space, BASE, score_recipe, 15):
        assert 1e-4 <= result.recipe.max_lr <= 1e-3
        assert 0.2 <= result.recipe.freeze_depth <= 0.6
        assert result.recipe.augment in ("none", "crop")


def test_the_same_seed_proposes_the_same_recipes_and_another_seed_others() -> None:
    first, second, other = (points(search(6, seed=seed)[0]) for seed in (0, 0, 1))
    assert first == second
    assert set(first) & set(other) == {(BASE.max_lr, BASE.freeze_depth)}


def test_the_study_holds_exactly_the_trials_asked_for() -> None:
    study, results = search(5)
    assert [result.number for result in results] == [0, 1, 2, 3, 4]
    assert len(study.trials) == 5


def test_resuming_runs_only_what_is_missing_from_the_total(stopped: Path) -> None:
    study, added = search(5, stopped)
    assert [result.number for result in added] == [3, 4]
    assert len(study.trials) == 5


def test_resuming_a_study_that_is_full_runs_nothing(stopped: Path) -> None:
    study, added = search(3, stopped)
    assert added == []
    assert best_recipes(study, 1)[0][1] > 0


def test_resuming_does_not_propose_the_same_points_again(stopped: Path) -> None:
    study, added = search(6, stopped)
    assert len(set(points(study))) == 6
    assert BASE not in [result.recipe for result in added]


def test_a_search_that_was_left_in_the_middle_of_a_trial_still_gives_the_total(stopped: Path) -> None:
    def interrupted(recipe: FinetuneRecipe) -> Iterator[float]:
        yield mean_score(recipe)
        raise KeyboardInterrupt

    study = build_study("study", storage(stopped), 0)
    with pytest.raises(KeyboardInterrupt):
        list(run_trials(study, SPACE, BASE, interrupted, 5))
    resumed, added = search(5, stopped)
    assert len(added) == 2
    assert len([trial for trial in resumed.trials if trial.state.is_finished()]) == 5


def test_resuming_with_another_augmentation_of_the_space_in_the_base_goes_on(stopped: Path) -> None:
    study = build_study("study", storage(stopped), 0)
    assert len(list(run_trials(study, SPACE, replace(BASE, augment="crop"), score_recipe, 4))) == 1


def test_resuming_with_an_augmentation_that_the_study_does_not_know_is_refused_in_a_sentence(stopped: Path) -> None:
    study = build_study("study", storage(stopped), 0)
    with pytest.raises(InputError, match="augment"):
        list(run_trials(study, SPACE, replace(BASE, augment="colour"), score_recipe, 4))


def diverges_above(limit: float, recipe: FinetuneRecipe) -> Iterator[float]:
    for step, score in enumerate(score_recipe(recipe)):
        if recipe.max_lr > limit and step == 2:
            raise TrainingDivergedError(f"the loss became nan with max_lr={recipe.max_lr:g}")
        yield score


def test_a_trial_that_diverges_is_recorded_as_failed_and_the_search_goes_on() -> None:
    study = build_study("study", None, 0)
    results = list(run_trials(study, SPACE, BASE, lambda recipe: diverges_above(1e-3, recipe), 12))
    failed = [result for result in results if result.state == "failed"]
    assert len(results) == 12
    assert failed
    assert all("the loss became nan" in result.reason and len(result.scores) == 2 for result in failed)
    assert {result.recipe.max_lr > 1e-3 for result in failed} == {True}
    assert best_recipes(study, 1)[0][0].max_lr <= 1e-3


def test_another_error_is_not_taken_for_divergence() -> None:
    def broken(_: FinetuneRecipe) -> Iterator[float]:
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        list(run_trials(build_study("study", None, 0), SPACE, BASE, broken, 3))


def test_trials_that_are_clearly_worse_are_stopped_before_all_episodes_are_spent() -> None:
    asked: list[int] = []

    def counted(recipe: FinetuneRecipe) -> Iterator[float]:
        asked.append(0)
        worse = 0.0 if recipe == BASE else 0.3
        for ease in EASE:
            asked[-1] += 1
            yield 0.9 + float(ease) - worse

    results = list(run_trials(build_study("study", None, 0), SPACE, BASE, counted, 6))
    assert [result.state for result in results] == ["complete"] + ["pruned"] * 5
    # At least four paired episodes before a judgement, and none computed after it.
    assert [len(result.scores) for result in results] == asked == [N_EPISODES] + [4] * 5


def test_trials_that_are_better_than_the_best_one_so_far_are_never_stopped() -> None:
    trials = itertools.count(1)

    def better_every_time(_: FinetuneRecipe) -> Iterator[float]:
        number = next(trials)
        for score in score_recipe(replace(BASE, max_lr=number * 1e-6)):  # the noise of an own recipe, for no ties
            yield 0.1 * number + score

    results = list(run_trials(build_study("study", None, 0), SPACE, BASE, better_every_time, 6))
    assert [result.state for result in results] == ["complete"] * 6


def test_scores_with_ties_are_judged_in_no_time() -> None:
    # Accuracies are multiples of 1 / queries, hence ties: an exact test over all 2^12 signs would take seconds.
    def tied(recipe: FinetuneRecipe) -> Iterator[float]:
        signs = [0, 0, 1, -1] * (N_EPISODES // 4)
        yield from [0.8 + (0 if recipe == BASE else sign / 75) for sign in signs]

    started = time.process_time()
    results = list(run_trials(build_study("study", None, 0), SPACE, BASE, tied, 3))
    assert [len(result.scores) for result in results] == [N_EPISODES] * 3
    assert time.process_time() - started < 1


def test_a_pruned_trial_is_never_the_best_even_with_the_highest_scores() -> None:
    study = build_study("study", None, 0)
    study.pruner = optuna.pruners.ThresholdPruner(upper=0.95)  # stops those that score too well, to make the case

    def too_good(recipe: FinetuneRecipe) -> Iterator[float]:
        yield from [0.6 if recipe == BASE else 0.99] * N_EPISODES

    results = list(run_trials(study, SPACE, BASE, too_good, 4))
    assert [result.state for result in results] == ["complete", "pruned", "pruned", "pruned"]
    assert best_recipes(study, 1)[0] == (BASE, pytest.approx(0.6))


def test_without_a_complete_trial_there_is_no_best_recipe() -> None:
    study = build_study("study", None, 0)
    list(run_trials(study, SPACE, BASE, lambda recipe: diverges_above(0.0, recipe), 2))
    with pytest.raises(InputError, match="study study has no complete trial; raise n_trials"):
        best_recipes(study, 1)


@pytest.mark.parametrize("n_trials", [0, -1])
def test_no_trials_are_refused(n_trials: int) -> None:
    with pytest.raises(InputError, match=f"n_trials is {n_trials}; allowed is 1 or more"):
        list(run_trials(build_study("study", None, 0), SPACE, BASE, score_recipe, n_trials))


def test_a_space_without_augmentations_is_refused() -> None:
    with pytest.raises(InputError, match="the search space has no augmentation; give at least one"):
        SearchSpace(augments=())


def test_a_space_with_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(InputError, match="augment is 'mixup'"):
        SearchSpace(augments=("none", "mixup"))


@pytest.mark.parametrize("ranges", [{"max_lr": (1e-1, 1e-5)}, {"freeze_depth": (0.9, 0.1)}, {"max_lr": (math.nan, 1)}])
def test_an_empty_range_is_refused(ranges: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(InputError, match="give the lower end first"):
        SearchSpace(**ranges)  # type: ignore[arg-type]


def test_the_best_trials_come_in_order_and_stopped_ones_not_at_all() -> None:
    study, results = search(12)
    complete = {r.recipe: float(np.mean(r.scores)) for r in results if r.state == "complete"}
    ranked = best_recipes(study, 100)
    assert [accuracy for _, accuracy in ranked] == pytest.approx(sorted(complete.values(), reverse=True))
    assert {recipe for recipe, _ in ranked} == set(complete)
    assert best_recipes(study, 2) == ranked[:2]


def test_the_winner_is_chosen_by_the_fresh_scores_and_not_by_luck() -> None:
    lucky, good = (FinetuneRecipe(max_lr=rate) for rate in (1e-3, 1e-2))
    fresh = {lucky: [0.6, 0.7], good: [0.8, 0.7]}
    finalists = list(rescore([(lucky, 0.9), (good, 0.85)], fresh.__getitem__))
    assert crown(finalists, FinetuneRecipe(max_lr=1.0)).winner == Finalist(good, 0.85, (0.8, 0.7))


def test_of_equal_finalists_the_first_wins() -> None:
    first, second = (Finalist(FinetuneRecipe(max_lr=rate), 0.9, (0.5, 0.7)) for rate in (1e-3, 1e-2))
    assert crown([first, second], FinetuneRecipe(max_lr=1.0)).winner is first


def test_the_best_of_many_equal_recipes_looks_better_than_it_is() -> None:
    """The reason for fresh episodes, in numbers: 30 recipes of the same accuracy, 0.7."""
    rng = np.random.default_rng(0)
    recipes = [FinetuneRecipe(max_lr=1e-3 * (i + 1)) for i in range(30)]
    searched = sorted(((r, float(rng.normal(0.7, 0.08, 10).mean())) for r in recipes), key=lambda pair: -pair[1])
    finalists = list(rescore(searched[:3], lambda _: rng.normal(0.7, 0.08, 400)))
    verdict = crown(finalists, FinetuneRecipe(max_lr=1.0))
    assert verdict.winner.search_accuracy > 0.73
    assert np.mean(verdict.winner.scores) == pytest.approx(0.7, abs=0.015)
    assert verdict.optimism == pytest.approx(verdict.best.search_accuracy - np.mean(verdict.best.scores))


OTHER = FinetuneRecipe(max_lr=1e-3)


def test_a_gain_beyond_chance_wins() -> None:
    base = Finalist(BASE, 0.6, (0.60, 0.50, 0.70, 0.61))
    better = Finalist(OTHER, 0.7, (0.70, 0.61, 0.79, 0.71))
    verdict = crown([base, better], BASE)
    assert verdict.winner is better
    assert verdict.gain == paired_difference(better.scores, base.scores)
    assert verdict.sentence() == "+10.00 +- 1.30 points over the base recipe"


def test_a_gain_that_may_be_chance_leaves_the_base_recipe() -> None:
    base = Finalist(BASE, 0.6, (0.60, 0.50, 0.70, 0.61))
    luckier = Finalist(OTHER, 0.9, (0.80, 0.40, 0.80, 0.60))
    verdict = crown([base, luckier], BASE)
    assert (verdict.best, verdict.winner) == (luckier, base)
    assert "not told apart, so the base recipe stays" in verdict.sentence()


def test_the_base_recipe_itself_gains_nothing() -> None:
    base, worse = Finalist(BASE, 0.6, (0.6, 0.7)), Finalist(OTHER, 0.9, (0.5, 0.6))
    verdict = crown([base, worse], BASE)
    assert verdict.winner is base
    assert verdict.gain is None
