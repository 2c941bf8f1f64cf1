"""Scores and their intervals, against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tl_core.errors import InputError
from tl_core.scoring.classification import confusion_matrix, count_confusions, reliability, score_predictions
from tl_core.scoring.episodes import (
    Estimate,
    RunningEstimate,
    compare_all,
    estimate,
    holm,
    independent_difference,
    paired_difference,
)


def test_the_interval_is_students_t_as_worked_out_by_hand() -> None:
    # mean = (0.5 + 0.7 + 0.9) / 3 = 0.7
    # sd = sqrt((0.2^2 + 0 + 0.2^2) / (3 - 1)) = sqrt(0.04) = 0.2
    # t(0.975, 2 degrees of freedom) = 4.302653, from a printed table
    # half-width = 4.302653 * 0.2 / sqrt(3) = 0.8605306 / 1.7320508 = 0.4968276
    result = estimate([0.5, 0.7, 0.9])
    assert result.mean == pytest.approx(0.7)
    assert result.sd == pytest.approx(0.2)
    assert result.ci95 == pytest.approx(0.4968276, abs=1e-6)
    assert result.low == pytest.approx(0.2031724, abs=1e-6)
    assert result.high == pytest.approx(1.1968276, abs=1e-6)
    assert result.n == 3


def test_a_single_value_has_an_infinite_interval() -> None:
    result = estimate([0.8])
    assert (result.mean, result.ci95, result.n) == (0.8, math.inf, 1)
    assert (result.low, result.high) == (-math.inf, math.inf)


def test_no_value_is_refused() -> None:
    with pytest.raises(InputError, match="no episode was scored; a mean needs at least one"):
        estimate([])


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(0.8, 0.1, (1000, 20))
    intervals = [estimate(draw) for draw in draws]
    covered = sum(interval.low <= 0.8 <= interval.high for interval in intervals)
    assert 930 <= covered <= 970


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(0.8125, 0.0061, 0.08, 600), "81.25 +- 0.61 % (n=600)"),
        (Estimate(0.8, math.inf, math.nan, 1), "80.00 % (n=1, too few for an interval)"),
    ],
)
def test_people_read_percent(value: Estimate, text: str) -> None:
    assert value.percent() == text


def test_identical_scores_differ_by_exactly_nothing() -> None:
    result = paired_difference([0.1, 0.5, 0.9], [0.1, 0.5, 0.9])
    assert (result.mean, result.ci95, result.n) == (0.0, 0.0, 3)


def test_the_paired_difference_is_the_interval_of_the_differences() -> None:
    # differences 0.1, 0.2, 0.3: mean 0.2, sd 0.1, half-width 4.302653 * 0.1 / sqrt(3) = 0.2484138
    result = paired_difference([0.6, 0.3, 0.9], [0.5, 0.1, 0.6])
    assert result.mean == pytest.approx(0.2)
    assert result.ci95 == pytest.approx(0.2484138, abs=1e-6)


def test_scores_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(InputError, match="2 and 3 scores cannot be paired"):
        paired_difference([0.1, 0.2], [0.1, 0.2, 0.3])


def test_welchs_interval_is_the_one_worked_out_by_hand() -> None:
    # means 0.7 and 0.4; variances 0.04 / 3 and 0.02 / 2; standard error sqrt(0.0233333) = 0.1527525
    # degrees of freedom 0.0233333^2 / (0.0133333^2 / 2 + 0.01^2 / 1) = 2.882353; t(0.975) = 3.258
    result = independent_difference([0.5, 0.7, 0.9], [0.3, 0.5])
    assert result.mean == pytest.approx(0.3)
    assert result.ci95 == pytest.approx(0.1527525 * stats.t.ppf(0.975, 2.882353), abs=1e-6)
    assert result.n == 2


@pytest.mark.parametrize(("other", "mean"), [([0.5, 0.5], 0.0), ([0.3, 0.3, 0.3], 0.2)])
def test_scores_without_variance_give_an_interval_without_width(other: list[float], mean: float) -> None:
    result = independent_difference([0.5, 0.5], other)
    assert (result.mean, result.ci95) == (pytest.approx(mean), pytest.approx(0.0))


def test_a_single_episode_on_one_side_has_an_infinite_interval() -> None:
    assert math.isinf(independent_difference([0.5], [0.5, 0.6, 0.7]).ci95)


# True classes in rows, predicted ones in columns:
#        0  1  2
#   0    3  1  0     recall 3/4
#   1    1  2  0     recall 2/3
#   2    2  1  0     recall 0
# precision: 3/6, 2/4, 0 (never predicted)
CONFUSIONS = np.array([[3, 1, 0], [1, 2, 0], [2, 1, 0]])
LABELS = np.repeat(np.arange(3), CONFUSIONS.sum(1))
PREDICTIONS = np.concatenate([np.repeat(np.arange(3), row) for row in CONFUSIONS])


def test_macro_scores_agree_with_a_confusion_table_worked_out_by_hand() -> None:
    scores = score_predictions(LABELS, PREDICTIONS)
    assert scores.accuracy == pytest.approx(5 / 10)
    assert scores.precision == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert scores.recall == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    # F1 of a class = 2 * hits / (its row + its column): 6 / (4 + 6), 4 / (3 + 4), 0
    assert scores.f1 == pytest.approx((6 / 10 + 4 / 7 + 0) / 3)


def test_confusions_are_counted_by_true_and_predicted_class() -> None:
    expected = [[0, 0, 3], [0, 1, 1], [1, 0, 1], [1, 1, 2], [2, 0, 2], [2, 1, 1]]
    assert count_confusions(LABELS, PREDICTIONS).tolist() == expected


def test_a_class_that_never_occurs_keeps_its_row_and_column() -> None:
    matrix = confusion_matrix(count_confusions(np.array([0, 2, 2]), np.array([2, 2, 0])), np.arange(4))
    assert matrix.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 0]]


def test_a_matrix_of_some_classes_keeps_the_shares_among_all() -> None:
    assert confusion_matrix(count_confusions(LABELS, PREDICTIONS), np.array([0, 2])).tolist() == [[0.75, 0], [2 / 3, 0]]


def test_holms_correction_is_that_of_his_example() -> None:
    # 0.01 * 4, 0.02 * 3, then max(0.06, 0.03 * 2), then max(0.06, 0.04): never below an earlier one.
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])


def test_all_pairs_are_compared_as_scipy_compares_two() -> None:
    rng = np.random.default_rng(0)
    scores = {name: (0.7 + shift + 0.1 * rng.random(30)).tolist() for name, shift in {"a": 0, "b": 0.1, "c": 0}.items()}
    pairs = compare_all(scores)
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in pairs:
        assert pair.p == pytest.approx(stats.ttest_rel(scores[pair.first], scores[pair.second]).pvalue)
        assert pair.p <= pair.p_holm <= 1
    assert "(different)" in pairs[0].points()
    assert "(not significantly different)" in pairs[1].points()


def test_equal_scores_are_not_told_apart() -> None:
    (pair,) = compare_all({"a": [0.5, 0.7], "b": [0.5, 0.7]})
    assert (pair.difference.mean, pair.p_holm) == (0.0, 1.0)


def test_a_difference_that_never_varies_is_significant() -> None:
    (pair,) = compare_all({"a": [0.75, 0.5], "b": [0.5, 0.25]})
    assert (pair.difference.mean, pair.p_holm) == (0.25, 0.0)


def test_one_method_or_one_episode_is_no_comparison() -> None:
    for scores in ({"a": [0.5, 0.6]}, {"a": [0.5], "b": [0.6]}):
        with pytest.raises(InputError, match="needs two methods and two episodes"):
            compare_all(scores)


def test_the_running_estimate_is_that_of_all_values() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.1, 500)
    running = RunningEstimate()
    assert running.estimate().n == 0
    assert math.isinf(running.estimate().ci95)
    for n, value in enumerate(values, start=1):
        running.add(value)
        if n in {1, 2, 3, 500}:
            so_far, all_at_once = running.estimate(), estimate(values[:n])
            assert so_far.n == n
            assert so_far.mean == pytest.approx(all_at_once.mean)
            assert so_far.ci95 == pytest.approx(all_at_once.ci95)


def test_the_calibration_error_worked_out_by_hand() -> None:
    # Bins of a fifth: [0.5, 0.5] is right half the time, [0.9, 0.9, 0.9, 1.0] three times in four.
    confidences = np.array([0.5, 0.5, 0.9, 0.9, 0.9, 1.0])
    right = np.array([True, False, True, True, True, False])
    assert reliability(confidences, right, n_bins=5).error == pytest.approx((0 + abs(3.7 - 3)) / 6)


def test_a_sure_and_wrong_judge_has_the_largest_calibration_error() -> None:
    assert reliability(np.ones(4), np.zeros(4, dtype=bool)).error == 1.0
