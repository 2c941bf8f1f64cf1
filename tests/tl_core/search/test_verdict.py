"""Who wins a search, and whether that is luck."""

from __future__ import annotations

import numpy as np
import pytest

from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import paired_difference
from tl_core.search.verdict import Finalist, rescore, select_winner

BASE, OTHER = FinetuneRecipe(max_lr=1e-4), FinetuneRecipe(max_lr=1e-3)


def finalist(recipe: FinetuneRecipe, *scores: float, promised: float = 0.9) -> Finalist:
    return Finalist(recipe, (promised, promised), scores)


def test_the_best_is_chosen_by_the_fresh_scores_and_not_by_luck() -> None:
    lucky, good = OTHER, FinetuneRecipe(max_lr=1e-2)
    fresh = {BASE: [0.5, 0.6], lucky: [0.6, 0.7], good: [0.8, 0.7]}
    searched = [(BASE, (0.6, 0.6)), (lucky, (0.9, 0.9)), (good, (0.8, 0.9))]
    finalists = list(rescore(searched, fresh.__getitem__))
    assert select_winner(finalists, BASE).best == Finalist(good, (0.8, 0.9), (0.8, 0.7))


def test_of_equal_finalists_the_base_stays() -> None:
    base, other = finalist(BASE, 0.5, 0.7), finalist(OTHER, 0.5, 0.7)
    assert select_winner([base, other], BASE).winner is base


def test_the_best_of_many_equal_recipes_looks_better_than_it_is() -> None:
    """The reason for fresh episodes, in numbers: 30 recipes of the same accuracy, 0.7."""
    rng = np.random.default_rng(0)
    recipes = [FinetuneRecipe(max_lr=1e-3 * (i + 1)) for i in range(30)]
    searched = sorted(((r, tuple(rng.normal(0.7, 0.08, 10))) for r in recipes), key=lambda pair: -np.mean(pair[1]))
    best = select_winner(list(rescore(searched[:3], lambda _: rng.normal(0.7, 0.08, 400))), searched[0][0]).best
    assert best.search_accuracy > 0.73
    assert np.mean(best.scores) == pytest.approx(0.7, abs=0.015)


def test_a_gain_beyond_chance_wins() -> None:
    base, better = finalist(BASE, 0.60, 0.50, 0.70, 0.61), finalist(OTHER, 0.70, 0.61, 0.79, 0.71)
    verdict = select_winner([base, better], BASE)
    assert verdict.winner is better
    assert verdict.gain == paired_difference(better.scores, base.scores)
    assert verdict.sentence() == "+10.00 +- 1.30 points over the default recipe"


def test_a_gain_that_may_be_chance_leaves_the_base_recipe() -> None:
    base, luckier = finalist(BASE, 0.60, 0.50, 0.70, 0.61), finalist(OTHER, 0.80, 0.40, 0.80, 0.60)
    verdict = select_winner([base, luckier], BASE)
    assert (verdict.best, verdict.winner) == (luckier, base)
    assert "not significantly better, so the default recipe stays" in verdict.sentence()


def test_the_base_recipe_itself_gains_nothing() -> None:
    base, worse = finalist(BASE, 0.6, 0.7), finalist(OTHER, 0.5, 0.6)
    verdict = select_winner([base, worse], BASE)
    assert verdict.winner is base
    assert verdict.gain.mean == 0
    assert verdict.sentence() == "nothing was better than the default recipe"
