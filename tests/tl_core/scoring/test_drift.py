"""Old and new features: level where nothing has changed, power where it has, and what makes no difference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import energy_distance

from tl_core.scoring.drift import N_PERMUTATIONS, _energies, compare_features


def _draw(seed: int, n: int, shift: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return rng.normal(size=(n, 8)) + 4 * np.eye(8)[labels] + shift * np.eye(8)[7], labels


def test_it_is_significant_as_often_as_it_says_where_nothing_has_changed() -> None:
    found = [compare_features(*_draw(2 * s, 40), *_draw(2 * s + 1, 30), seed=s) for s in range(200)]
    assert 2 <= sum(p <= 0.05 for p in found) <= 20
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


def test_a_shift_of_all_classes_is_noticed() -> None:
    assert compare_features(*_draw(0, 60), *_draw(1, 60, shift=2.0)) == 1 / (1 + N_PERMUTATIONS)


def test_other_shares_of_the_classes_are_no_difference() -> None:
    old, old_labels = _draw(0, 300)
    new, new_labels = _draw(1, 300)
    few = (new_labels != 0) | (np.arange(300) % 10 == 0)
    assert compare_features(old, old_labels, new[few], new_labels[few]) > 0.05


def test_the_same_images_are_not_different() -> None:
    old, labels = _draw(0, 30)
    assert compare_features(old, labels, old, labels) > 0.9


@pytest.mark.parametrize("new_labels", [[5, 5], [0, 5]])
def test_without_a_class_to_compare_there_is_no_answer(new_labels: list[int]) -> None:
    old, new = np.eye(3), np.eye(3)[:2]
    assert math.isnan(compare_features(old, np.array([0, 1, 2]), new, np.array(new_labels)))


def test_the_statistic_is_the_energy_distance() -> None:
    angles_old, angles_new = np.array([0.0, 0.0, np.pi]), np.array([np.pi, 0.0])
    as_points = [np.stack([np.cos(a), np.sin(a)], 1) for a in (angles_old, angles_new)]
    # On a line the points are 2 apart; scipy returns the square root of the distance.
    expected = energy_distance([0, 0, 2], [2, 0]) ** 2 * 6 / 5
    assert _energies(*as_points, np.random.default_rng(0))[0] == pytest.approx(expected)
