"""Who wins a search, and whether that is luck."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tl_core.data.episodes import Episode
from tl_core.fewshot.results import EpisodeResult
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import paired_difference
from tl_core.scoring.paired import paired_over_images
from tl_core.search.verdict import Finalist, Verdict, rescore, select_winner

BASE, OTHER = FinetuneRecipe(max_lr=1e-4), FinetuneRecipe(max_lr=1e-3)
N_IMAGES, N_QUERY = 60, 20
Hits = NDArray[np.bool_]


def episodes(right: Hits, n: int = 40, n_query: int = N_QUERY) -> list[EpisodeResult]:
    """Results of n episodes of a method that is right on the same images, bool (n_images,), in every episode."""
    results = []
    for index in range(n):
        rows = np.random.default_rng(index).permutation(len(right))[:n_query]
        none = np.empty(0, np.int64)
        episode = Episode(index, (0, 1), none, none, rows, np.zeros(n_query, np.int64), index)
        labels = np.zeros(n_query, dtype=np.int64)
        predictions = np.where(right[rows], 0, 1)
        metrics = {"accuracy": float(right[rows].mean()), "loss": 0.0}
        results.append(EpisodeResult(episode, metrics, labels, predictions, np.ones(n_query), 0.0))
    return results


def finalist(recipe: FinetuneRecipe, right: Hits, promised: float = 0.9) -> Finalist:
    return Finalist.of(recipe, (promised, promised), episodes(right))


def right_on(n: int, n_images: int = N_IMAGES, first: int = 0) -> Hits:
    return (np.arange(n_images) >= first) & (np.arange(n_images) < first + n)


def judge(*finalists: Finalist, alike: Sequence[int] = range(N_IMAGES)) -> Verdict:
    return select_winner(finalists, BASE, np.array(alike, dtype=np.int64))


def test_the_best_is_chosen_by_the_fresh_scores_and_not_by_luck() -> None:
    lucky, good = OTHER, FinetuneRecipe(max_lr=1e-2)
    fresh = {BASE: right_on(30), lucky: right_on(36), good: right_on(45)}
    searched = [(BASE, (0.6, 0.6)), (lucky, (0.9, 0.9)), (good, (0.8, 0.9))]
    best = judge(*rescore(searched, lambda recipe: episodes(fresh[recipe]))).best
    assert (best.recipe, best.search_scores) == (good, (0.8, 0.9))
    assert np.mean(best.scores) == pytest.approx(0.75, abs=0.03)


def test_of_equal_finalists_the_base_stays() -> None:
    base, other = finalist(BASE, right_on(36)), finalist(OTHER, right_on(36))
    assert judge(base, other).winner is base


def test_a_gain_beyond_chance_wins() -> None:
    base, better = finalist(BASE, right_on(30)), finalist(OTHER, right_on(45))
    verdict = judge(base, better)
    assert verdict.winner is better
    assert verdict.gain == paired_difference(better.scores, base.scores)
    lead = right_on(45).astype(float) - right_on(30)
    asked = np.bincount(better.rows, minlength=N_IMAGES).astype(float)
    assert verdict.gain_on_images == paired_over_images(lead, asked, np.arange(N_IMAGES))


def test_more_episodes_of_the_same_few_images_do_not_make_a_gain_surer() -> None:
    base, luckier = right_on(30), right_on(30, first=3)  # right on three others, wrong on three
    luckier[40:43] = True
    found = []
    for n in (40, 1000):
        of = [Finalist.of(r, (0.9,), episodes(right, n)) for r, right in ((BASE, base), (OTHER, luckier))]
        found.append(judge(*of))
    few, many = found
    assert many.gain.low > 0  # over draws of these images it is sure ...
    assert few.winner is few.base  # ... and says nothing about others
    assert many.winner is many.base
    assert many.gain_on_images.low == pytest.approx(few.gain_on_images.low, abs=0.01)


def test_near_duplicates_count_once() -> None:
    base, better = finalist(BASE, right_on(30)), finalist(OTHER, right_on(40))
    assert judge(base, better).winner is better
    copies = [*range(30), *[30] * 10, *range(31, 51)]  # the ten images that it gains show the same
    assert judge(base, better, alike=copies).winner is base


def test_the_luckiest_of_many_has_to_gain_more() -> None:
    base, better = finalist(BASE, right_on(30)), finalist(OTHER, right_on(36))
    assert judge(base, better).winner is better
    others = [finalist(FinetuneRecipe(max_lr=1e-3 * (i + 2)), right_on(30)) for i in range(9)]
    verdict = judge(base, better, *others)
    assert (verdict.best, verdict.winner) == (better, base)
    assert verdict.gain_on_images.p > judge(base, better).gain_on_images.p


def test_among_equal_recipes_one_seldom_wins() -> None:
    """Ten recipes that are right on 70 of 100 images each, on others each: 5 % is nominal, for two-sided 2.5 %."""
    wins = 0
    for draw in range(100):
        rng = np.random.default_rng(draw)
        rights = [rng.random(100) < 0.7 for _ in range(10)]
        recipes = [BASE, *(FinetuneRecipe(max_lr=1e-3 * (i + 1)) for i in range(9))]
        of = [Finalist.of(recipe, (0.7,), episodes(right, 20)) for recipe, right in zip(recipes, rights, strict=True)]
        verdict = select_winner(of, BASE, np.arange(100))
        wins += verdict.winner is not verdict.base
    assert wins <= 8


def test_the_base_recipe_itself_gains_nothing() -> None:
    base, worse = finalist(BASE, right_on(36)), finalist(OTHER, right_on(20))
    verdict = judge(base, worse)
    assert verdict.winner is base
    assert verdict.gain.mean == 0


def test_on_other_episodes_nothing_is_chosen() -> None:
    verdict = judge(*(finalist(FinetuneRecipe(max_lr=r), right_on(30 + i)) for i, r in enumerate((1e-4, 1e-3, 1e-2))))
    again = verdict.scored_again(lambda recipe: episodes(right_on(30 if recipe == BASE else 20)))
    assert again.best.recipe == verdict.best.recipe
    assert again.gain.mean < 0
    assert again.n_others == 1
