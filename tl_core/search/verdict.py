"""Verdict on a search: the best of many is partly the luckiest, so the best few are scored once more.

Their episodes share the few images of the search half. Whether the best is better than the base recipe is decided over
these images, with the number of finalists allowed for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tl_core.fewshot.results import EpisodeResult
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import Estimate, estimate, paired_difference
from tl_core.scoring.paired import PairedDifference, paired_over_images

RunRecipe = Callable[[FinetuneRecipe], Iterable[EpisodeResult]]
"""From a recipe to its results on some episodes, the same ones for all recipes."""
_Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Finalist:
    """A recipe that was scored twice.

    Attributes:
        search_scores: accuracy on each of the search's episodes, by which it was chosen: too high on average. Empty
            for a base recipe whose own trial did not come to its end.
        scores: accuracy on each fresh episode.
        rows: int64 (n,), the image of each answer in the fresh episodes, in their order.
        right: bool (n,), whether it was right.
    """

    recipe: FinetuneRecipe
    search_scores: tuple[float, ...]
    scores: tuple[float, ...]
    rows: _Rows = field(compare=False, repr=False)
    right: NDArray[np.bool_] = field(compare=False, repr=False)

    @classmethod
    def of(cls, recipe: FinetuneRecipe, search_scores: tuple[float, ...], results: Iterable[EpisodeResult]) -> Finalist:
        """Collect the results of fresh episodes."""
        found = list(results)
        rows = np.concatenate([result.episode.query_rows for result in found])
        right = np.concatenate([result.predictions == result.labels for result in found])
        return cls(recipe, search_scores, tuple(result.accuracy for result in found), rows, right)

    @property
    def search_accuracy(self) -> float:
        """Mean over the search's episodes, NaN if there is none."""
        return estimate(self.search_scores).mean if self.search_scores else math.nan


def rescore(
    candidates: Iterable[tuple[FinetuneRecipe, tuple[float, ...]]], run_recipe: RunRecipe
) -> Iterator[Finalist]:
    """Score candidates once more, on episodes that no trial has seen."""
    for recipe, search_scores in candidates:
        yield Finalist.of(recipe, search_scores, run_recipe(recipe))


@dataclass(frozen=True)
class Verdict:
    """Winner of a search, and whether that is luck.

    Attributes:
        best: the finalist with the highest mean on its fresh episodes.
        base: the recipe that the search started from.
        alike: int64 (images of the dataset,), equal for near-duplicates.
        n_others: finalists beside the base recipe, of which the best was taken.
    """

    best: Finalist
    base: Finalist
    alike: _Rows = field(compare=False, repr=False)
    n_others: int = 1

    @property
    def gain(self) -> Estimate:
        """best - base on the same fresh episodes of the same images."""
        return paired_difference(self.best.scores, self.base.scores)

    @cached_property
    def gain_on_images(self) -> PairedDifference:
        """best - base on other images of the same kind, the luckiest of the others allowed for."""
        images, of_answer, n_asked = np.unique(self.best.rows, return_inverse=True, return_counts=True)
        lead = np.bincount(of_answer, weights=self.best.right.astype(float) - self.base.right)
        return paired_over_images(lead / n_asked, n_asked.astype(np.float64), self.alike[images], self.n_others)

    @property
    def winner(self) -> Finalist:
        """The best, if it is better than the base recipe beyond chance, and the base recipe otherwise."""
        return self.best if self.best is not self.base and self.gain_on_images.low > 0 else self.base

    def scored_again(self, run_recipe: RunRecipe) -> Verdict:
        """The same two on other episodes: nothing is chosen by them."""
        pairs = {finalist.recipe: finalist.search_scores for finalist in (self.best, self.base)}
        again = {finalist.recipe: finalist for finalist in rescore(pairs.items(), run_recipe)}
        return replace(self, best=again[self.best.recipe], base=again[self.base.recipe], n_others=1)


def select_winner(finalists: Sequence[Finalist], base: FinetuneRecipe, alike: _Rows) -> Verdict:
    """Choose the finalist with the highest mean on its fresh episodes; the base recipe must be among them."""
    best = max(finalists, key=lambda finalist: estimate(finalist.scores).mean)
    of_base = next(finalist for finalist in finalists if finalist.recipe == base)
    return Verdict(best, of_base, alike, max(1, len(finalists) - 1))
