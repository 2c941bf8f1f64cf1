"""Scores of classifiers on one set of test images, with their uncertainty."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tl_core.errors import InputError
from tl_core.scoring.episodes import SIGNIFICANT, holm

N_RESAMPLES = 2000
Hits = NDArray[np.bool_]
"""Mask of the correctly classified test images: (n_images,)."""


@dataclass(frozen=True)
class Interval:
    """A share, or a difference of two shares, of n images with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def percent(self) -> str:
        """As people read it: `91.25 % (89.70 to 92.61, n=1400)`."""
        return f"{100 * self.value:.2f} % ({100 * self.low:.2f} to {100 * self.high:.2f}, n={self.n:,})"


def wilson(hits: Hits) -> Interval:
    """Accuracy with its score interval (Wilson, 1927)."""
    if len(hits) == 0:
        raise InputError("no image was scored; an accuracy needs at least one")
    low, high = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return Interval(float(hits.mean()), float(low), float(high), len(hits))


def wilson_of_share(share: float, n: int) -> Interval:
    """Wilson's interval (1927) of a mean over n images, each of which may count for a part.

    Never too narrow, but too wide where images count for parts. scipy's interval, which `wilson` takes, is of whole
    counts only.
    """
    z = float(stats.norm.ppf(0.975))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n)


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """Mean over images with its percentile interval (Efron, 1979), from `N_RESAMPLES` resamples of the images."""
    if np.ptp(values) == 0:  # every resample is the same
        return Interval(float(values[0]), float(values[0]), float(values[0]), len(values))
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=N_RESAMPLES, batch=100, method="percentile", rng=np.random.default_rng(seed)
    )
    low, high = result.confidence_interval
    return Interval(float(values.mean()), float(low), float(high), len(values))


@dataclass(frozen=True)
class ImageComparison:
    """A difference of accuracies, first - second, on the same images, with McNemar's p-value before and after Holm."""

    first: str
    second: str
    difference: Interval
    p: float
    p_holm: float

    def points(self) -> str:
        """As people read it, in points: `+1.25 (0.31 to 2.20), p = 0.0089 (different)`."""
        verdict = "different" if self.p_holm < SIGNIFICANT else "not told apart"
        low, high = 100 * self.difference.low, 100 * self.difference.high
        return f"{100 * self.difference.value:+.2f} ({low:+.2f} to {high:+.2f}), p = {self.p_holm:.2g} ({verdict})"


def mcnemar(first: Hits, second: Hits) -> float:
    """Two-sided exact p-value that two classifiers err equally often on the same images (McNemar, 1947)."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def compare_on_images(hits: Mapping[str, Hits]) -> list[ImageComparison]:
    """Every pair of classifiers that were scored on the same images, in the same order.

    Raises:
        InputError: different numbers of images.
    """
    if len({len(of_one) for of_one in hits.values()}) > 1:
        raise InputError("classifiers can only be compared on the same images; give runs with the same test part")
    pairs = list(itertools.combinations(hits, 2))
    p_values = [mcnemar(hits[first], hits[second]) for first, second in pairs]
    return [
        ImageComparison(first, second, bootstrap(hits[first].astype(float) - hits[second].astype(float)), p, p_holm)
        for (first, second), p, p_holm in zip(pairs, p_values, holm(p_values), strict=True)
    ]
