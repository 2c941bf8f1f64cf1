"""Verdict on a search: the best of many is partly the luckiest, so the best few are scored once more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import Estimate, estimate, paired_difference

ScoreRecipe = Callable[[FinetuneRecipe], Iterable[float]]
"""From a recipe to its accuracy on each of some episodes, lazily: what is not asked for is not computed."""


@dataclass(frozen=True)
class Finalist:
    """A recipe that was scored twice.

    Attributes:
        search_scores: accuracy on each of the search's episodes, by which it was chosen: too high on average. Empty
            for a base recipe whose own trial did not come to its end.
        scores: accuracy on each fresh episode.
    """

    recipe: FinetuneRecipe
    search_scores: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def search_accuracy(self) -> float:
        """Mean over the search's episodes, NaN if there is none."""
        return estimate(self.search_scores).mean if self.search_scores else math.nan


def rescore(
    candidates: Iterable[tuple[FinetuneRecipe, tuple[float, ...]]], score_recipe: ScoreRecipe
) -> Iterator[Finalist]:
    """Score candidates once more, on episodes that no trial has seen."""
    for recipe, search_scores in candidates:
        yield Finalist(recipe, search_scores, tuple(score_recipe(recipe)))


@dataclass(frozen=True)
class Verdict:
    """Winner of a search, and whether that is luck.

    Attributes:
        best: the finalist with the highest mean on its fresh episodes.
        base: the recipe that the search started from.
    """

    best: Finalist
    base: Finalist

    @property
    def gain(self) -> Estimate:
        """best - base on the same fresh episodes."""
        return paired_difference(self.best.scores, self.base.scores)

    @property
    def winner(self) -> Finalist:
        """The best, if it is better than the base recipe beyond chance, and the base recipe otherwise."""
        return self.best if self.best is not self.base and self.gain.low > 0 else self.base

    def scored_again(self, score_recipe: ScoreRecipe) -> Verdict:
        """The same two on other episodes: nothing is chosen by them."""
        pairs = {finalist.recipe: finalist.search_scores for finalist in (self.best, self.base)}
        again = {finalist.recipe: finalist for finalist in rescore(pairs.items(), score_recipe)}
        return Verdict(again[self.best.recipe], again[self.base.recipe])

    def sentence(self) -> str:
        """In words."""
        if self.best is self.base:
            return "nothing was better than the default recipe"
        gained = f"{100 * self.gain.mean:+.2f} +- {100 * self.gain.ci95:.2f} points over the default recipe"
        return (
            gained if self.winner is self.best else f"{gained}: not significantly better, so the default recipe stays"
        )


def select_winner(finalists: Sequence[Finalist], base: FinetuneRecipe) -> Verdict:
    """Choose the finalist with the highest mean on its fresh episodes; the base recipe must be among them."""
    best = max(finalists, key=lambda finalist: estimate(finalist.scores).mean)
    return Verdict(best, next(finalist for finalist in finalists if finalist.recipe == base))
