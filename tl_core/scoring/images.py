"""Scores of classifiers on one set of test images, with their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tl_core.errors import InputError

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


def wilson_of_share(share: float, n: float) -> Interval:
    """Wilson's interval (1927) of a mean over n images, each of which may count for a part; n need not be whole.

    Never too narrow, but too wide where images count for parts. scipy's interval, which `wilson` takes, is of whole
    counts only.
    """
    z = float(stats.norm.ppf(0.975))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(share, min(share, low), max(share, high), round(n))  # rounded, the ends may pass it at 0 and 1


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """Mean over images with its percentile interval (Efron, 1979), from `N_RESAMPLES` resamples of the images.

    Where all images have the same share, every resample has too, and Wilson's interval is taken.
    """
    if np.ptp(values) == 0:
        return wilson_of_share(float(values[0]), len(values))
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=N_RESAMPLES, batch=100, method="percentile", rng=np.random.default_rng(seed)
    )
    low, high = result.confidence_interval
    return Interval(float(values.mean()), float(low), float(high), len(values))
