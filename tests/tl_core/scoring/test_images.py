"""Intervals and paired tests on images, against values worked out by hand or known from tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tl_core.errors import InputError
from tl_core.scoring.images import bootstrap, compare_on_images, mcnemar, wilson


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


def test_mcnemar_counts_only_the_images_on_which_the_two_differ() -> None:
    first, second = hits(10, 90), np.roll(hits(2, 98), 50)
    first, second = np.concatenate([first, hits(500, 0)]), np.concatenate([second, hits(500, 0)])
    # 10 against 2 out of 12: two-sided binomial, 2 * (C(12,0) + C(12,1) + C(12,2)) / 2^12
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(first, first) == 1.0


def test_comparisons_are_corrected_for_their_number() -> None:
    first = np.concatenate([hits(10, 0), hits(50, 50)])
    second = np.concatenate([hits(0, 10), hits(50, 50)])
    pairs = compare_on_images({"a": first, "b": second, "c": second})
    by_names = {(pair.first, pair.second): pair for pair in pairs}
    assert by_names["a", "b"].p == pytest.approx(2 / 2**10)
    assert by_names["a", "b"].p_holm == pytest.approx(3 * 2 / 2**10)
    assert by_names["b", "c"].p_holm == 1.0
    assert by_names["a", "b"].difference.value == pytest.approx(10 / 110)
    assert by_names["a", "b"].difference.low > 0
    assert "different" in by_names["a", "b"].points()
    assert "not told apart" in by_names["b", "c"].points()


def test_different_numbers_of_images_are_refused() -> None:
    with pytest.raises(InputError, match="same images"):
        compare_on_images({"a": hits(3, 1), "b": hits(3, 2)})
