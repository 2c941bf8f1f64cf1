"""Paired differences of two methods over the images that both were scored on.

Episodes of a small target share its images, so more of them only repeat what those images say. An interval that is to
hold on other images resamples the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_core.errors import InputError
from tl_core.scoring.episodes import SIGNIFICANT, holm

_Values = NDArray[np.float64]

N_DRAWS = 20_000
TAIL = 0.025
"""Chance left out at either end of a 95 % interval."""
_CHUNK = 2_000_000
"""Random numbers that are in memory at a time."""


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference over n images, first - second, with its 95 % interval and the two-sided p-value that it is 0."""

    value: float
    low: float
    high: float
    p: float
    n: int

    @property
    def is_significant(self) -> bool:
        """True if the interval leaves out 0."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class PairComparison:
    """A paired difference of several, with its p-value after Holm's correction (1979)."""

    first: str
    second: str
    difference: PairedDifference
    p_holm: float

    @property
    def is_significant(self) -> bool:
        """True if chance is a poor explanation, with the number of pairs allowed for."""
        return self.p_holm < SIGNIFICANT


def paired_over_images(
    differences: _Values,
    sizes: _Values | None = None,
    groups: NDArray[np.int64] | None = None,
    n_compared: int = 1,
) -> PairedDifference:
    """Estimate the mean difference on other images of the same kind, by a Bayesian bootstrap (Rubin, 1981).

    Two pseudo-images of half a weight, one that only the first method has right and one that only the second has, keep
    the interval from closing where all images agree; for 0/1 predictions it is the posterior of a multinomial under
    Jeffreys' prior of the disagreements. benchmarks/statistics/comparisons.py has its error rates.

    Args:
        differences: (n,) in [-1, 1], first - second on each image, 0/1 predictions or means over episodes.
        sizes: (n,) how often each image was scored; equal without them.
        groups: (n,) equal for near-duplicates, which are resampled together.
        n_compared: differences of which this is the largest; interval and p-value allow for them (Bonferroni).

    Raises:
        InputError: no image, or a difference that is no number.
    """
    totals, weights = _by_group(differences, sizes, groups)
    value = float(totals.sum() / weights.sum())
    draws = _draw_means(totals, weights, {-1.0: 0.5, 1.0: 0.5})
    low, high = np.quantile(draws, [TAIL / n_compared, 1 - TAIL / n_compared])
    tail = min(float((draws <= 0).mean()), float((draws >= 0).mean()))
    p = min(1.0, n_compared * max(2 * tail, 2 / N_DRAWS))
    return PairedDifference(value, float(low), float(high), p, len(differences))


def lower_bound(differences: _Values, groups: NDArray[np.int64] | None = None) -> float:
    """Bound the mean difference from below with 97.5 % confidence, for any distribution and number of images.

    The bound of Gaffke (Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
    variable, 2005; Learned-Miller and Thomas, A new confidence interval for the mean of a bounded random variable,
    2019): one more image is counted, on which the first method lost. For 0/1 predictions and a bound of 0 it is the
    exact test of McNemar (1947).

    Args:
        differences, groups: as in `paired_over_images`.

    Raises:
        InputError: no image, or a difference that is no number.
    """
    totals, weights = _by_group(differences, None, groups)
    return float(np.quantile(_draw_means(totals, weights, {-1.0: 1.0}), TAIL))


def compare_pairs(differences: Mapping[tuple[str, str], PairedDifference]) -> list[PairComparison]:
    """Correct the p-values of several paired differences for their number."""
    corrected = holm([found.p for found in differences.values()])
    return [
        PairComparison(first, second, found, p_holm)
        for ((first, second), found), p_holm in zip(differences.items(), corrected, strict=True)
    ]


def _by_group(differences: _Values, sizes: _Values | None, groups: NDArray[np.int64] | None) -> tuple[_Values, _Values]:
    """Sum differences and sizes within groups: (n_groups,) each."""
    if len(differences) == 0 or not np.isfinite(differences).all():
        raise InputError(f"expected a number for each of 1 or more images, got {differences.tolist()[:5]}")
    sizes = np.ones(len(differences)) if sizes is None else sizes
    if groups is None:
        return differences * sizes, sizes
    member = np.unique(groups, return_inverse=True)[1]
    totals, of_groups = (np.bincount(member, weights=values) for values in (differences * sizes, sizes))
    return totals.astype(np.float64), of_groups.astype(np.float64)


def _draw_means(totals: _Values, sizes: _Values, pseudo: Mapping[float, float]) -> _Values:
    """Draw `N_DRAWS` means under random weights of the groups: float64 (N_DRAWS,).

    Args:
        pseudo: weights of pseudo-groups of average size, by their difference.
    """
    # Equal groups are one with the sum of their weights; sorted, so that the order of the images changes nothing.
    kinds, counts = np.unique(np.stack([totals, sizes]), axis=1, return_counts=True)
    extra = sizes.mean() * np.array([list(pseudo), [1.0] * len(pseudo)])
    alone, others = kinds[:, counts == 1], np.concatenate([kinds[:, counts > 1], extra], axis=1)
    shapes = np.concatenate([counts[counts > 1], list(pseudo.values())])
    rng = np.random.default_rng(0)
    rows = max(1, _CHUNK // (kinds.shape[1] + len(pseudo)))
    drawn = [
        # A gamma variable of shape 1 is an exponential one, which is drawn several times as fast.
        rng.standard_exponential((n, alone.shape[1])) @ alone.T
        + rng.standard_gamma(shapes, (n, len(shapes))) @ others.T
        for n in (min(rows, N_DRAWS - start) for start in range(0, N_DRAWS, rows))
    ]
    of_totals, of_sizes = np.concatenate(drawn).T
    means: _Values = of_totals / of_sizes
    return means
