"""Mean accuracies over episodes with their confidence intervals, and paired comparisons."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tl_core.errors import InputError

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes with the half-width of its 95 % interval (Student's t)."""

    mean: float
    ci95: float
    sd: float
    n: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.ci95

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.ci95

    def percent(self) -> str:
        """As people read it: `81.25 +- 0.61 % (n=600)`."""
        if not math.isfinite(self.ci95):
            return f"{100 * self.mean:.2f} % (n={self.n}, too few for an interval)"
        return f"{100 * self.mean:.2f} +- {100 * self.ci95:.2f} % (n={self.n})"


class RunningEstimate:
    """The estimate of values that come one by one, without keeping them (Welford, 1962)."""

    def __init__(self) -> None:
        self._n = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Take one more value into account."""
        self._n += 1
        step = value - self._mean
        self._mean += step / self._n
        self._squares += step * (value - self._mean)

    def estimate(self) -> Estimate:
        """Estimate of the values so far; without any, NaN with an infinite interval."""
        if self._n <= 1:
            return Estimate(self._mean if self._n else math.nan, math.inf, math.nan, self._n)
        return _estimate(self._mean, math.sqrt(self._squares / (self._n - 1)), self._n)


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Mean and 95 % interval of independent values; with a single value the interval is infinite."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0:
        raise InputError("no episode was scored; a mean needs at least one")
    if scores.size == 1:
        return Estimate(float(scores[0]), math.inf, math.nan, 1)
    return _estimate(float(scores.mean()), float(scores.std(ddof=1)), int(scores.size))


def _estimate(mean: float, sd: float, n: int) -> Estimate:
    return Estimate(mean, float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n), sd, n)


def paired_difference(
    first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64]
) -> Estimate:
    """Estimate of first - second over the same episodes, in the same order."""
    if len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} scores cannot be paired; both need the same episodes")
    return estimate(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))


def independent_difference(
    first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64]
) -> Estimate:
    """Estimate of mean(first) - mean(second) over different episodes (Welch, 1947).

    `n` is the smaller number of episodes; `sd` is NaN, since unpaired scores have no deviation of differences.
    """
    one, other = estimate(first), estimate(second)
    difference, n = one.mean - other.mean, min(one.n, other.n)
    if n == 1:
        return Estimate(difference, math.inf, math.nan, n)
    with _equal_scores_allowed():
        low, high = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return Estimate(difference, float(high - low) / 2, math.nan, n)


@dataclass(frozen=True)
class Comparison:
    """A paired difference first - second, with the p-value of its t-test before and after Holm's correction (1979)."""

    first: str
    second: str
    difference: Estimate
    p: float
    p_holm: float

    def points(self) -> str:
        """As people read it, in points: `+1.25 +- 0.61, p = 0.0021 (different)`."""
        verdict = "different" if self.p_holm < SIGNIFICANT else "not significantly different"
        interval = f"{100 * self.difference.mean:+.2f} +- {100 * self.difference.ci95:.2f}"
        return f"{interval}, p = {self.p_holm:.2g} ({verdict})"


def compare_all(scores: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Every pair of methods that were scored on the same episodes, in the same order.

    Raises:
        InputError: fewer than two methods or episodes, or methods with different numbers of episodes.
    """
    if len(scores) < 2 or min(len(values) for values in scores.values()) < 2:
        raise InputError(f"a comparison needs two methods and two episodes at least; given are {len(scores)} methods")
    pairs = list(itertools.combinations(scores, 2))
    differences = [paired_difference(scores[first], scores[second]) for first, second in pairs]
    p_values = [_paired_p(scores[first], scores[second]) for first, second in pairs]
    corrected = holm(p_values)
    return [
        Comparison(first, second, difference, p, p_holm)
        for (first, second), difference, p, p_holm in zip(pairs, differences, p_values, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) of the p-values, which bounds the chance of any false positive among them.

    scipy has corrections of the false discovery rate only, which bound the share of false positives instead.
    """
    order = np.argsort(p_values)
    m = len(p_values)
    corrected, highest = [0.0] * m, 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (m - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def _paired_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value of the paired t-test; 1 for identical scores, where the test itself is undefined."""
    if np.array_equal(first, second):
        return 1.0
    with _equal_scores_allowed():
        return float(stats.ttest_rel(first, second).pvalue)


def _equal_scores_allowed() -> warnings.catch_warnings[None]:
    # scipy warns of a variance of zero, which few episodes of equal scores do have; its interval and p-value hold.
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)
