"""Paired differences over images, against values worked out by hand, known tests and known error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tl_core.errors import InputError
from tl_core.scoring.paired import PairedDifference, compare_pairs, lower_bound, paired_over_images


def outcomes(lost: int, equal: int, won: int) -> np.ndarray:
    """Differences of 0/1 predictions."""
    return np.repeat([-1.0, 0.0, 1.0], [lost, equal, won])


@pytest.mark.parametrize("n", [1, 6, 100])
def test_two_equal_sets_of_predictions_say_nothing_and_the_interval_has_a_width(n: int) -> None:
    found = paired_over_images(outcomes(0, n, 0))
    assert found.value == 0
    assert not found.is_significant
    assert found.p > 0.9
    assert found.low < -1 / (2 * n + 2)
    assert found.high > 1 / (2 * n + 2)


@pytest.mark.parametrize(("lost", "equal", "won"), [(0, 0, 6), (0, 94, 6), (3, 60, 12), (10, 0, 11)])
def test_of_predictions_the_p_value_is_that_of_the_mid_p_test_of_mcnemar(lost: int, equal: int, won: int) -> None:
    # Under Jeffreys' prior the posterior chance of being worse lies beside the mid-p-value of the binomial.
    found = paired_over_images(outcomes(lost, equal, won))
    posterior = 2 * stats.beta.cdf(0.5, won + 0.5, lost + 0.5)
    assert found.p == pytest.approx(min(1, posterior), abs=0.01)


@pytest.mark.parametrize(("lost", "equal", "won"), [(0, 14, 6), (0, 15, 5), (3, 60, 12), (3, 60, 13), (1, 91, 8)])
def test_the_bound_is_above_0_where_mcnemars_exact_test_is_significant(lost: int, equal: int, won: int) -> None:
    exact = stats.binomtest(won, won + lost, 0.5)
    assert (lower_bound(outcomes(lost, equal, won)) > 0) == (exact.pvalue < 0.05)


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_the_bound_of_equal_predictions_is_that_of_no_loss_in_n(n: int) -> None:
    known = stats.binomtest(0, n).proportion_ci(0.95, method="exact")
    assert lower_bound(outcomes(0, n, 0)) == pytest.approx(-known.high, rel=0.03)


def test_the_interval_agrees_with_the_normal_one_of_a_large_sample() -> None:
    values = np.clip(np.random.default_rng(0).normal(0.1, 0.2, 4000), -1, 1)
    half = 1.96 * values.std(ddof=1) / np.sqrt(4000)
    found = paired_over_images(values)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.0005)


def test_near_duplicates_are_resampled_together() -> None:
    values = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], 50)
    copied, groups = np.repeat(values, 4), np.repeat(np.arange(50), 4)
    alone, together, apart = (
        paired_over_images(values),
        paired_over_images(copied, groups=groups),
        paired_over_images(copied),
    )
    assert (together.low, together.high, together.p) == pytest.approx((alone.low, alone.high, alone.p))
    assert apart.high - apart.low < 0.6 * (alone.high - alone.low)
    assert (alone.n, together.n) == (50, 200)


def test_images_that_were_scored_more_often_weigh_more() -> None:
    # 30 right of 40 against 10 of 40, and 5 of 10 against 5 of 10: the mean over all 50 predictions is 0.4
    found = paired_over_images(np.array([0.5, 0.0]), sizes=np.array([40.0, 10.0]))
    assert found.value == pytest.approx(0.4)


def test_neither_the_order_of_the_images_nor_another_call_changes_the_result() -> None:
    rng = np.random.default_rng(2)
    values = rng.choice([-0.5, 0.0, 0.25, 1.0], 60)
    assert paired_over_images(values) == paired_over_images(rng.permutation(values))


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_what_is_no_difference_is_refused(values: list[float]) -> None:
    for estimate in (paired_over_images, lower_bound):
        with pytest.raises(InputError, match="expected a number for each of 1 or more images"):
            estimate(np.array(values))


def test_p_values_are_corrected_for_the_number_of_pairs() -> None:
    pairs = {("a", "b"): PairedDifference(0.1, 0.0, 0.2, 0.02, 9), ("a", "c"): PairedDifference(0.2, 0.1, 0.3, 0.03, 9)}
    found = compare_pairs(pairs)
    assert [(one.first, one.second, one.p_holm) for one in found] == [("a", "b", 0.04), ("a", "c", 0.04)]
    assert all(one.is_significant for one in found)


@pytest.mark.parametrize("n", [12, 30, 60])
def test_equal_classifiers_are_called_different_in_at_most_7_percent(n: int) -> None:
    chance = 0.0
    for differ in range(n + 1):  # each differs on a fifth of the images
        share = stats.binom.pmf(differ, n, 0.2)
        for lost in range((differ + 1) // 2) if share > 1e-3 else ():
            found = paired_over_images(outcomes(lost, n - differ, differ - lost))
            chance += 2 * share * stats.binom.pmf(lost, differ, 0.5) * found.is_significant
    assert 0.01 < chance <= 0.07
