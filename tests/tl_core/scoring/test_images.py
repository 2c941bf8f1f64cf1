"""Intervals on images, against values worked out by hand or known from tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tl_core.errors import InputError
from tl_core.scoring.images import bootstrap, wilson


def hits(right: int, wrong: int) -> np.ndarray:
    return np.array([True] * right + [False] * wrong)


@pytest.mark.parametrize(("right", "wrong"), [(45, 5), (0, 3), (7, 0)])
def test_wilsons_interval_is_the_one_of_scipy(right: int, wrong: int) -> None:
    known = stats.binomtest(right, right + wrong).proportion_ci(0.95, method="wilson")
    result = wilson(hits(right, wrong))
    assert result.value == right / (right + wrong)
    assert (result.low, result.high) == pytest.approx((known.low, known.high), abs=1e-12)


def test_an_accuracy_without_images_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        wilson(hits(0, 0))


def test_the_bootstrap_agrees_with_the_normal_interval_of_a_large_sample() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 4000)
    result = bootstrap(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(4000)
    assert result.value == pytest.approx(values.mean())
    assert (result.low, result.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)


@pytest.mark.parametrize("share", [1.0, 0.0, 0.5])
def test_images_that_all_have_the_same_share_leave_an_interval(share: float) -> None:
    found = bootstrap(np.full(6, share))
    assert (found.value, found.n) == (share, 6)
    assert found.high - found.low > 0.3, "6 of 6 is 61 to 100"
    assert found.low <= share <= found.high
