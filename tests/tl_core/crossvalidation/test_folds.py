"""Folds: stratified, grouped, repeatable, and honest about what cannot be held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_core.crossvalidation.folds import Folds, Groups, assign_folds, group_images
from tl_core.errors import InputError

NAMES = ("cat", "dog")


def alone(n: int) -> Groups:
    return Groups(np.arange(n), n)


def table(labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    return np.array([np.bincount(labels[fold == f], minlength=labels.max() + 1) for f in range(fold.max() + 1)])


def test_two_classes_of_three_images_get_three_folds_with_one_of_each() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    folds = assign_folds(labels, alone(6), 4, seed=0)
    assert (folds.n_folds, folds.n_repeats) == (3, 4)
    for fold in folds.of_image:
        np.testing.assert_array_equal(table(labels, fold), np.ones((3, 2)))


def test_a_large_set_gets_ten_folds() -> None:
    assert assign_folds(np.arange(100) % 4, alone(100), 1, seed=0).n_folds == 10


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(3, 12), min_size=2, max_size=5), seed=st.integers(0, 2**31 - 1))
def test_images_of_a_class_are_dealt_out_evenly(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    (fold,) = assign_folds(labels, alone(len(labels)), 1, seed).of_image
    assert np.ptp(table(labels, fold), axis=0).max() <= 1


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=3, max_size=8), seed=st.integers(0, 1000))
def test_groups_are_never_parted(sizes: list[int], seed: int) -> None:
    of_class = np.repeat(np.arange(len(sizes)), sizes)
    of_image = np.concatenate([of_class, of_class + len(sizes)])
    labels = np.repeat([0, 1], sum(sizes))
    folds = assign_folds(labels, Groups(of_image, 2 * len(sizes)), 2, seed)
    for fold in folds.of_image:
        assert all(len(set(fold[of_image == group])) == 1 for group in range(2 * len(sizes)))
        assert (table(labels, fold) > 0).sum(0).min() >= 3


def test_folds_are_a_function_of_the_seed() -> None:
    def deal(seed: int) -> Folds:
        return assign_folds(np.arange(40) % 3, alone(40), 3, seed)

    np.testing.assert_array_equal(deal(7).of_image, deal(7).of_image)
    assert (deal(7).of_image != deal(8).of_image).any()
    assert (deal(7).of_image[0] != deal(7).of_image[1]).any()


def test_near_duplicates_copies_and_own_groups_are_joined() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1])
    near = np.array([0, 0, 1, 2, 3, 4, 5])
    contents = ["a", "b", "c", "c", "d", "e", "f"]
    own = ["p", "q", "r", "s", "s", "t", "u"]
    groups = group_images(labels, NAMES, near, contents, own)
    assert groups.notice == ""
    assert groups.n_groups == 4
    together = groups.of_image[:, None] == groups.of_image
    assert together[[0, 2, 3], [1, 3, 4]].all()
    assert not together[[1, 5], [2, 6]].any()


def test_a_class_of_near_duplicates_falls_back_to_identical_files_and_says_so() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    groups = group_images(labels, NAMES, np.array([0, 0, 0, 1, 2]), ["a", "a", "b", "c", "d"])
    assert "cat" in groups.notice
    assert "dog" not in groups.notice
    assert groups.n_groups == 4
    assert groups.of_image[0] == groups.of_image[1] != groups.of_image[2]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (["p"] * 4, "expected at least 2 groups, got 1"),
        (["p", "p", "q", "r"], "expected at least 2 groups of every class, got 1 of 'cat'"),
    ],
)
def test_a_group_that_holds_all_of_a_class_is_refused(own: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        group_images(np.array([0, 0, 1, 1]), NAMES, np.arange(4), list("abcd"), own)


def test_a_class_of_one_image_is_refused() -> None:
    with pytest.raises(InputError, match="expected at least 2 different images of every class, got 1 of 'dog'"):
        group_images(np.array([0, 0, 1]), NAMES, np.arange(3), list("abc"))


@pytest.mark.parametrize("seed", range(20))
def test_groups_of_two_classes_leave_each_class_in_three_folds(seed: int) -> None:
    labels = np.repeat([0, 1], 9)
    groups = np.array([5, 0, 2, 5, 3, 3, 0, 3, 3, 3, 1, 4, 4, 4, 5, 2, 2, 0])
    folds = assign_folds(labels, Groups(groups, 6), 1, seed, max_folds=3)
    assert folds.n_folds == 3
    assert [len(np.unique(folds.of_image[0, labels == label])) for label in (0, 1)] == [3, 3]
