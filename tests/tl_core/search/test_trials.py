"""The search for a recipe, on scores whose best recipe is known."""

from __future__ import annotations

import itertools
import math
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tl_core.errors import InputError
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.search.objective import Budget, ScoreRecipe, TrialResult
from tl_core.search.space import SearchSpace, parse_space
from tl_core.search.studies import build_study
from tl_core.search.trials import best_recipes, count_episodes, prepare_study, run_trials, wants_more
from tl_core.training.loop import TrainingDivergedError

N_EPISODES = 12
BASE = FinetuneRecipe(max_lr=1e-4, freeze_depth=0.5, steps=7, head="cosine")
SPACE = parse_space("max_lr+freeze_depth+augment")
SETTING: dict[str, object] = {"pool": "abc"}
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
    return study, run(study, score_recipe, n_trials)


def run(study: optuna.Study, score: ScoreRecipe, n_trials: int, base: FinetuneRecipe = BASE) -> list[TrialResult]:
    space = prepare_study(study, SPACE, base, SETTING)
    return list(run_trials(study, space, base, score, Budget(n_trials)))


def points(results: list[TrialResult]) -> list[tuple[float, float, str]]:
    return [(float(r.recipe.max_lr), r.recipe.freeze_depth, r.recipe.augment) for r in results]


def test_the_search_finds_a_better_recipe_than_the_base() -> None:
    study, _ = search(25)
    recipe, scores = best_recipes(study, 1)[0]
    assert np.mean(scores) > mean_score(BASE) + 0.15
    assert 3e-3 < recipe.max_lr < 3e-2


def test_the_best_recipe_comes_with_its_scores_on_all_episodes() -> None:
    study, results = search(12)
    recipe, scores = best_recipes(study, 1)[0]
    assert scores == pytest.approx(list(score_recipe(recipe)))
    assert np.mean(scores) == pytest.approx(max(np.mean(r.scores) for r in results if r.state == "complete"))


def test_what_is_not_searched_comes_from_the_base() -> None:
    study, results = search(8)
    assert all((result.recipe.steps, result.recipe.head) == (7, "cosine") for result in results)
    assert best_recipes(study, 1)[0][0].steps == 7


def test_the_first_trial_is_the_base_recipe() -> None:
    _, results = search(2)
    assert results[0].recipe == BASE
    assert results[0].state == "complete"
    assert results[1].recipe != BASE


@pytest.mark.parametrize(
    "change", [{"augment": "crop+flip"}, {"max_lr": 1e-6}, {"max_lr": 0.5}, {"freeze_depth": 0.95}]
)
def test_a_base_outside_the_space_is_still_the_first_trial(change: dict[str, Any]) -> None:
    base = replace(BASE, **change)
    assert run(build_study("study", None, 0), score_recipe, 3, base)[0].recipe == base


def test_every_third_recipe_is_one_of_the_literature_until_all_were_tried() -> None:
    known = [BASE, *SPACE.literature(BASE)]
    recipes = [result.recipe for result in search(3 * len(known) + 3)[1]]
    assert recipes[: 3 * len(known) : 3] == known
    assert recipes[-3] not in known


def test_the_same_seed_proposes_the_same_recipes_and_another_seed_others() -> None:
    first, second, other = (points(search(9, seed=seed)[1]) for seed in (0, 0, 1))
    assert first == second
    assert first[::3] == other[::3]
    proposed, others = ({point for number, point in enumerate(all_) if number % 3} for all_ in (first, other))
    assert not proposed & others


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
    assert best_recipes(study, 1)


def test_a_resumed_study_is_the_undisturbed_one(stopped: Path) -> None:
    _, undisturbed = search(10)
    _, added = search(10, stopped)
    assert points(added) == points(undisturbed)[3:]
    assert len(set(points(undisturbed))) == 10


def test_a_search_that_was_left_in_the_middle_of_a_trial_still_gives_the_total(stopped: Path) -> None:
    def interrupted(recipe: FinetuneRecipe) -> Iterator[float]:
        yield mean_score(recipe)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(build_study("study", storage(stopped), 0), interrupted, 5)
    resumed, added = search(5, stopped)
    assert len(added) == 2
    assert len([trial for trial in resumed.trials if trial.state != TrialState.FAIL]) == 5


def outsider(folder: Path) -> optuna.Study:
    """The study as another process sees it."""
    return optuna.load_study(study_name="study", storage=storage(folder))


def test_a_lost_trial_is_not_one_of_the_budget_and_its_point_is_tried_again(stopped: Path) -> None:
    study = outsider(stopped)
    lost = study.ask()  # by a process that was killed right after
    lost.suggest_float("max_lr", 1e-5, 1e-1, log=True)
    stale = sqlite3.connect(stopped / "studies.db")
    with stale:
        stale.execute("INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (?, '2020-01-01')", (lost._trial_id,))
    stale.close()
    results = run(build_study("study", storage(stopped), 0), score_recipe, 5)
    assert len(results) == 2
    assert lost.number not in [result.number for result in results]
    trials = study.get_trials()
    assert trials[lost.number].state == TrialState.FAIL
    assert sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials) == 5
    assert [trial.params["max_lr"] for trial in trials].count(trials[lost.number].params["max_lr"]) == 2


@pytest.mark.parametrize("episode", [1, N_EPISODES - 1], ids=["in the middle", "before its last word"])
def test_a_process_that_slept_for_too_long_leaves_its_trial_and_goes_on(stopped: Path, episode: int) -> None:
    slept = []

    def asleep(recipe: FinetuneRecipe) -> Iterator[float]:
        for index, score in enumerate(score_recipe(recipe)):
            yield score
            if index == episode and not slept:
                (mine,) = outsider(stopped).get_trials(states=(TrialState.RUNNING,))
                slept.append(mine.number)
                study._storage.set_trial_state_values(mine._trial_id, TrialState.FAIL)  # as others would

    study = build_study("study", storage(stopped), 0, prune=False)
    results = run(study, asleep, 5)
    assert slept == [3]
    assert [result.number for result in results] == [4, 5]
    assert study.trials[3].state == TrialState.FAIL


def test_trials_that_others_are_running_are_waited_for(stopped: Path) -> None:
    study = outsider(stopped)
    other = study.ask()
    started = time.time()
    threading.Timer(1.5, lambda: study.tell(other, 0.5)).start()
    assert run(build_study("study", storage(stopped), 0), score_recipe, 4) == []
    assert time.time() - started >= 1.5
    assert len([trial for trial in study.get_trials() if trial.state.is_finished()]) == 4


def test_of_two_that_begin_the_last_trial_one_is_dropped(stopped: Path) -> None:
    """The second process asks between the first one's look at the budget and its question for a point."""
    study, rival = build_study("study", storage(stopped), 0), outsider(stopped)
    prepare_study(study, SPACE, BASE, SETTING)
    ask, taken = study.ask, []

    def late_ask(*arguments: Any) -> optuna.Trial:
        if not taken:
            taken.append(rival.ask())
        return ask(*arguments)

    study.ask = late_ask  # type: ignore[method-assign]
    threading.Timer(1.5, lambda: rival.tell(taken[0], 0.5)).start()
    assert run(study, score_recipe, 4) == []
    finished = [trial for trial in study.get_trials() if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) == 4
    assert not wants_more(study, Budget(4))


def test_no_trial_starts_after_the_deadline() -> None:
    study = build_study("study", None, 0)
    space = prepare_study(study, SPACE, BASE, SETTING)

    def slow(_: FinetuneRecipe) -> Iterator[float]:
        time.sleep(0.3)
        yield from score_recipe(BASE)

    results = list(run_trials(study, space, BASE, slow, Budget(100, time.time() + 0.5)))
    assert 1 <= len(results) <= 2
    assert all(len(result.scores) == N_EPISODES for result in results if result.state == "complete")


def test_a_study_in_a_journal_goes_on(tmp_path: Path) -> None:
    journal = f"journal:{tmp_path / 'study.log'}"
    assert len(run(build_study("study", journal, 0), score_recipe, 2)) == 2
    assert len(run(build_study("study", journal, 0), score_recipe, 5)) == 3


@pytest.mark.parametrize(
    ("base", "space", "setting", "message"),
    [
        (replace(BASE, steps=8), SPACE, SETTING, "begun with base=steps=7, not 8"),
        (BASE, parse_space("max_lr+augment"), SETTING, "begun with space=freeze_depth="),
        (BASE, SPACE, {"pool": "xyz"}, "begun with pool=abc, not xyz; give another study name"),
    ],
)
def test_another_search_under_the_same_name_is_refused(
    stopped: Path, base: FinetuneRecipe, space: SearchSpace, setting: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare_study(build_study("study", storage(stopped), 0), space, base, setting)


def diverges_above(limit: float, recipe: FinetuneRecipe) -> Iterator[float]:
    for step, score in enumerate(score_recipe(recipe)):
        if recipe.max_lr > limit and step == 2:
            raise TrainingDivergedError(f"the loss became nan with max_lr={recipe.max_lr:g}")
        yield score


def test_a_trial_that_diverges_is_recorded_as_failed_and_the_search_goes_on() -> None:
    study = build_study("study", None, 0)
    results = run(study, lambda recipe: diverges_above(1e-3, recipe), 12)
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
        run(build_study("study", None, 0), broken, 3)


def test_trials_that_are_clearly_worse_are_stopped_before_all_episodes_are_spent() -> None:
    asked: list[int] = []

    def counted(recipe: FinetuneRecipe) -> Iterator[float]:
        asked.append(0)
        worse = 0.0 if recipe == BASE else 0.3
        for ease in EASE:
            asked[-1] += 1
            yield 0.9 + float(ease) - worse

    results = run(build_study("study", None, 0), counted, 6)
    assert [result.state for result in results] == ["complete"] + ["pruned"] * 5
    # At least four paired episodes before a judgement, and none computed after it.
    assert [len(result.scores) for result in results] == asked == [N_EPISODES] + [4] * 5


def test_a_trial_that_is_better_on_average_is_not_stopped_for_being_a_little_worse_on_most() -> None:
    def far_better_once(recipe: FinetuneRecipe) -> Iterator[float]:
        for step, ease in enumerate(EASE):
            yield 0.5 + float(ease) + (0 if recipe == BASE else 0.4 if step == 0 else -0.01)

    results = run(build_study("study", None, 0), far_better_once, 3)
    assert [result.state for result in results] == ["complete"] * 3


def test_trials_that_are_better_than_the_best_one_so_far_are_never_stopped() -> None:
    trials = itertools.count(1)

    def better_every_time(_: FinetuneRecipe) -> Iterator[float]:
        number = next(trials)
        for score in score_recipe(replace(BASE, max_lr=number * 1e-6)):  # the noise of an own recipe, for no ties
            yield 0.1 * number + score

    results = run(build_study("study", None, 0), better_every_time, 6)
    assert [result.state for result in results] == ["complete"] * 6


def test_easy_first_episodes_do_not_keep_a_worse_trial_alive() -> None:
    easy_first = np.linspace(0.2, -0.2, N_EPISODES)

    def eased(recipe: FinetuneRecipe) -> Iterator[float]:
        yield from (0.7 if recipe == BASE else 0.65) + easy_first

    results = run(build_study("study", None, 0), eased, 4)
    assert [len(result.scores) for result in results] == [N_EPISODES] + [4] * 3


def test_scores_with_ties_are_judged_in_no_time() -> None:
    # Accuracies are multiples of 1 / queries, hence ties: an exact test over all 2^12 signs would take seconds.
    def tied(recipe: FinetuneRecipe) -> Iterator[float]:
        signs = [0, 0, 1, -1] * (N_EPISODES // 4)
        yield from [0.8 + (0 if recipe == BASE else sign / 75) for sign in signs]

    started = time.process_time()
    results = run(build_study("study", None, 0), tied, 3)
    assert [len(result.scores) for result in results] == [N_EPISODES] * 3
    assert time.process_time() - started < 1


def test_a_pruned_trial_is_never_the_best_even_with_the_highest_scores() -> None:
    study = build_study("study", None, 0)
    study.pruner = optuna.pruners.ThresholdPruner(upper=0.95)  # stops those that score too well, to make the case

    def too_good(recipe: FinetuneRecipe) -> Iterator[float]:
        yield from [0.6 if recipe == BASE else 0.99] * N_EPISODES

    results = run(study, too_good, 4)
    assert [result.state for result in results] == ["complete", "pruned", "pruned", "pruned"]
    assert best_recipes(study, 1)[0] == (BASE, pytest.approx([0.6] * N_EPISODES))


def test_without_a_complete_trial_there_is_no_best_recipe() -> None:
    study = build_study("study", None, 0)
    run(study, lambda recipe: diverges_above(0.0, recipe), 2)
    with pytest.raises(
        InputError,
        match=r"has no complete trial \(the first failure: the loss became nan.*; raise n_trials",
    ):
        best_recipes(study, 1)


@pytest.mark.parametrize("n_trials", [0, -1])
def test_no_trials_are_refused(n_trials: int) -> None:
    with pytest.raises(InputError, match=f"expected n_trials of 1 or more, got {n_trials}"):
        run(build_study("study", None, 0), score_recipe, n_trials)


def test_a_recipe_that_cannot_be_is_recorded_and_the_search_goes_on() -> None:
    def refused(recipe: FinetuneRecipe) -> Iterator[float]:
        if recipe.freeze_depth > 0.8:
            raise InputError("no batch norm is unfrozen")
        yield from score_recipe(recipe)

    results = run(build_study("study", None, 0), refused, 10)
    failed = [result for result in results if result.state == "failed"]
    assert len(results) == 10
    assert failed
    assert {result.reason for result in failed} == {"no batch norm is unfrozen"}


def test_the_same_recipe_is_not_scored_twice() -> None:
    """Where all is frozen the augmentation is all there is to choose, and there are four."""
    asked: list[FinetuneRecipe] = []

    def counted(recipe: FinetuneRecipe) -> Iterator[float]:
        asked.append(recipe)
        better = 0.1 if recipe.freeze_depth == 1 else 0.0
        yield from better + 0.7 + EASE

    base = replace(BASE, head="linear", freeze_depth=1.0)
    study = build_study("study", None, 0)
    results = run(study, counted, 30, base)
    copies = [result for result in results if result.copy_of is not None]
    by_number = {result.number: result for result in results}
    assert copies
    for copy in copies:
        original = by_number[int(copy.copy_of or 0)]
        assert copy.recipe == original.recipe
        assert copy.scores == pytest.approx(original.scores[: len(copy.scores)])
    assert len(asked) == len(set(asked)) == len(results) - len(copies)
    assert count_episodes(study) == sum(len(result.scores) for result in results if result.copy_of is None)


def test_episodes_are_counted() -> None:
    study, results = search(8)
    assert count_episodes(study) == sum(len(result.scores) for result in results)


def test_the_best_trials_come_in_order_and_stopped_ones_not_at_all() -> None:
    study, results = search(12)
    complete = {r.recipe: float(np.mean(r.scores)) for r in results if r.state == "complete"}
    ranked = best_recipes(study, 100)
    means = [np.mean(scores) for _, scores in ranked]
    assert means == pytest.approx(sorted(complete.values(), reverse=True))
    assert {recipe for recipe, _ in ranked} == set(complete)
    assert best_recipes(study, 2) == ranked[:2]
