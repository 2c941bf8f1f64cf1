"""Selective prediction: from which probability on a prediction is to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tl_core.scoring.images import Interval
from tl_core.scoring.out_of_fold import OutOfFold

BARS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Probabilities below which a prediction may be withheld."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Believed:
    """Predictions that are left where those below a probability are withheld.

    Attributes:
        bar: the probability.
        answered: share of the images that get a prediction.
        right: share of those predictions that are right; without any from 0 to 1.
    """

    bar: float
    answered: Interval
    right: Interval


def when_to_believe(
    out_of_fold: OutOfFold, groups: NDArray[np.int64] | None = None, bars: Sequence[float] = BARS
) -> tuple[Believed, ...]:
    """Coverage and precision above each bar, with exact 95 % intervals (Clopper and Pearson, 1934).

    An image that gets a prediction in a part of the repeats counts for that part.

    Args:
        groups: int64 (n_images,), images of which all together count as one; without it each counts.
    """
    return tuple(_believed(bar, *_counts(out_of_fold, bar, groups)) for bar in bars)


def recommend_bar(
    out_of_fold: OutOfFold,
    precision: float,
    groups: NDArray[np.int64] | None = None,
    bars: Sequence[float] = BARS,
    risk: float = 0.05,
) -> float | None:
    """Lowest bar above which predictions are right at least as often as wanted; None where no bar is known to be.

    Of all bars together, the chance that one which does not hold is taken for one that does is at most `risk`: each is
    tested by the one-sided exact bound at risk / len(bars) (Bonferroni), as in selective classification with guaranteed
    risk (Geifman and El-Yaniv, 2017).

    Args:
        precision: wanted share of right predictions, above 0 and below 1.
    """
    for bar in sorted(bars):
        right, answered, _ = _counts(out_of_fold, bar, groups)
        if lower_bound(right, answered, risk / len(bars)) >= precision:
            return bar
    return None


def lower_bound(hits: float, n: float, risk: float) -> float:
    """Exact one-sided lower bound of a share, by the quantile of a beta distribution; counts need not be whole."""
    return float(stats.beta.ppf(risk, hits, n - hits + 1)) if hits > 0 else 0.0


def exact_interval(hits: float, n: float) -> tuple[float, float]:
    """Two-sided exact 95 % interval of a share; (0, 1) of nothing."""
    return lower_bound(hits, n, 0.025), 1 - lower_bound(n - hits, n, 0.025)


def _believed(bar: float, right: float, answered: float, n: float) -> Believed:
    share = Interval(answered / n, *exact_interval(answered, n), round(n))
    precision = right / answered if answered else float("nan")
    return Believed(bar, share, Interval(precision, *exact_interval(right, answered), round(answered)))


def _counts(out_of_fold: OutOfFold, bar: float, groups: NDArray[np.int64] | None) -> tuple[float, float, float]:
    """Right predictions, predictions, and images, where a group counts as one image."""
    above = out_of_fold.probabilities.max(1) >= bar
    right = above & (out_of_fold.probabilities.argmax(1) == out_of_fold.label)
    parts = np.ones(out_of_fold.n_images) if groups is None else 1 / np.bincount(groups)[groups]
    of_rows = parts[out_of_fold.image] / out_of_fold.n_repeats
    return float(of_rows[right].sum()), float(of_rows[above].sum()), float(parts.sum())
