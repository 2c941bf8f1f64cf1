"""Scores of a delivered classifier, believed predictions and suspect labels, on predictions made by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from tl_core.scoring.delivered import find_taken_for, lacking_factors, score_delivered, variance_factor
from tl_core.scoring.images import wilson_of_share
from tl_core.scoring.out_of_fold import OutOfFold
from tl_core.scoring.selective import exact_interval, recommend_bar, when_to_believe
from tl_core.scoring.suspects import find_suspects


def made(labels: list[int], of_label: list[float], smaller: float | None = None, n_repeats: int = 1) -> OutOfFold:
    """Two classes; `of_label` is the probability of each image's own, in 4 folds."""
    label, probability = np.tile(labels, n_repeats), np.tile(of_label, n_repeats)
    n, right = len(labels), (probability > 0.5).astype(float)
    rows = np.arange(n * n_repeats)
    probabilities = np.empty((len(rows), 2))
    probabilities[rows, label], probabilities[rows, 1 - label] = probability, 1 - probability
    return OutOfFold(
        image=rows % n,
        repeat=rows // n,
        fold=rows % n % 4,
        label=label,
        probabilities=probabilities,
        candidate=np.zeros(len(rows), dtype=np.int64),
        smaller=right if smaller is None else np.full(len(rows), smaller),
    )


def test_accuracy_follows_the_images_and_balanced_accuracy_the_classes() -> None:
    found = score_delivered(made([0] * 90 + [1] * 10, [0.9] * 90 + [0.2] * 10))
    assert found.accuracy.value == pytest.approx(0.9)
    assert found.balanced_accuracy.value == pytest.approx(0.5)
    assert [recall.value for recall in found.recalls] == [1.0, 0.0]
    assert found.taken_for == (-1, 0)


def test_of_two_classes_that_a_class_is_as_often_taken_for_none_is_named() -> None:
    confusions = np.array([[0, 0, 9], [0, 1, 2], [0, 2, 2], [1, 0, 1], [1, 2, 3], [2, 2, 8]])
    assert find_taken_for(confusions, 3) == (-1, 2, -1)


def test_a_thousand_classes_are_scored_in_one_pass_over_the_predictions() -> None:
    n_classes = 1000
    label = np.tile(np.repeat(np.arange(n_classes), 3), 2)
    rows = np.arange(len(label))
    probabilities = np.full((len(rows), n_classes), 1e-4, dtype=np.float32)
    probabilities[rows, label] = 0.9
    right = np.ones(len(rows))
    started = time.process_time()
    found = score_delivered(OutOfFold(rows % 3000, rows // 3000, rows % 3, label, probabilities, 0 * rows, right))
    assert time.process_time() - started < 1
    assert found.taken_for == (-1,) * n_classes
    assert found.recalls[-1].n == 3


def test_the_interval_is_wilsons_of_fewer_images() -> None:
    found = score_delivered(made([0, 1] * 50, [0.9] * 80 + [0.2] * 20)).accuracy
    expected = wilson_of_share(0.8, 100 / 1.6)
    assert variance_factor(100) == pytest.approx(1.6)
    assert (found.low, found.high, found.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 100)


def test_what_a_fold_would_add_is_extrapolated() -> None:
    # 80 % with three folds of four and 70 % with two: linear in 1 / images that is 85 % with four.
    found = score_delivered(made(([0] * 4 + [1] * 4) * 10, [0.9] * 64 + [0.2] * 16, smaller=0.7)).accuracy
    assert found.value == pytest.approx(0.85)


def test_a_class_in_some_of_the_folds_lacks_more_in_one_than_in_a_further_one() -> None:
    # One of 5 images is in each of 5 folds of 10: fits without a fold have 4 of them, without a further one 4 or 3.
    of_ten = replace(made([0] * 5 + [1] * 20, [0.9] * 25), fold=np.append(np.arange(5), np.arange(20) % 10))
    small, large = lacking_factors(of_ten)
    assert small == pytest.approx((1 / 4 - 1 / 5) / (4 / 9 * (1 / 3 - 1 / 4)))
    assert large == pytest.approx(8 / 10), "as in every fold there are as many"


def test_no_interval_has_width_zero() -> None:
    found = score_delivered(made([0, 1] * 3, [0.9] * 6)).accuracy
    assert found.value == found.high == 1.0
    assert found.low < 0.61


def test_a_group_of_images_that_are_predicted_alike_counts_as_one() -> None:
    groups = np.arange(100) // 5
    right = [0.9] * 80 + [0.2] * 20
    alone, grouped = (score_delivered(made([0] * 50 + [1] * 50, right), of).accuracy for of in (None, groups))
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 1.8 * (alone.high - alone.low)
    assert grouped.n == 20


def test_believed_predictions_are_counted_from_each_bar_on() -> None:
    found = when_to_believe(made([0, 1] * 50, [0.95] * 60 + [0.65] * 20 + [0.3] * 20), bars=(0.0, 0.9))
    assert [one.answered.value for one in found] == [1.0, pytest.approx(0.6)]
    assert [one.right.value for one in found] == [pytest.approx(0.8), 1.0]
    assert (found[1].right.low, found[1].right.high) == pytest.approx(exact_interval(60, 60))


def test_the_lowest_bar_that_is_known_to_hold_is_recommended() -> None:
    sure = made([0, 1] * 500, [0.97] * 600 + [0.4] * 400)  # the wrong ones have 0.6 for the other class
    assert recommend_bar(sure, 0.95) == 0.7
    assert recommend_bar(sure, 0.5) == 0.0
    few = made([0, 1] * 6, [0.97] * 12)
    assert recommend_bar(few, 0.95) is None, "12 of 12 do not show 95 %"


def test_each_of_many_bars_is_tested_for_their_number() -> None:
    # 59 of 59 right: 95 % are with 5 % risk at one bar, and with 0.5 % at each of ten only 91 %.
    right = made([0, 1] * 29 + [0], [0.99] * 59)
    assert recommend_bar(right, 0.95, bars=(0.0,)) == 0.0
    assert recommend_bar(right, 0.95, bars=tuple(np.linspace(0, 0.9, 10))) is None


def test_images_of_one_group_are_believed_as_one() -> None:
    right, groups = made([0, 1] * 60, [0.99] * 120), np.arange(120) // 12
    assert recommend_bar(right, 0.9, bars=(0.0,)) == 0.0
    assert recommend_bar(right, 0.9, groups, bars=(0.0,)) is None
    (found,) = when_to_believe(right, groups, bars=(0.0,))
    assert found.right.n == 10
    assert found.right.low == pytest.approx(exact_interval(10, 10)[0])


def test_classes_of_equal_size_and_accuracy_have_the_interval_of_all_images() -> None:
    found = score_delivered(made([0, 1] * 50, [0.9] * 80 + [0.2] * 20))
    both = found.accuracy, found.balanced_accuracy
    assert both[0].low == pytest.approx(both[1].low, abs=0.005)
    assert both[0].high == pytest.approx(both[1].high, abs=0.005)


def test_suspects_are_the_mistaken_images_least_probable_label_first() -> None:
    found = find_suspects(made([0, 1, 0, 1], [0.9, 0.1, 0.3, 0.8], n_repeats=2))
    assert [(one.image, one.label, one.likely) for one in found] == [(1, 1, 0), (2, 0, 1)]
    assert found[0].probability == pytest.approx(0.1)
