"""Images that look like none of the classes: directions and folds of which the cosines are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tl_core.scoring.unlike import (
    auroc,
    class_means,
    group_folds,
    know_classes,
    left_out_auroc,
    out_of_fold_similarity,
    similarity,
    unlike_threshold,
)

LABELS = np.repeat(np.arange(3), 4)


def along_axes(n_extra: int = 0, noise: float = 0.1) -> NDArray[np.float32]:
    """Four images of each of three classes, each class along an axis of its own."""
    rng = np.random.default_rng(0)
    return (np.eye(3 + n_extra)[LABELS] + rng.normal(0, noise, (12, 3 + n_extra))).astype(np.float32)


def by_hand(features: NDArray[np.float32], labels: NDArray[np.int64], folds: NDArray[np.int64]) -> list[float]:
    """The out-of-fold similarity of each image, one after another."""
    found = []
    for row, feature in enumerate(features.astype(np.float64)):
        of_repeats = []
        for fold in folds:
            outside = fold != fold[row]
            means = [features[outside & (labels == c)].mean(0) for c in np.unique(labels[outside])]
            of_repeats.append(max(feature @ m / np.linalg.norm(feature) / np.linalg.norm(m) for m in means))
        found.append(float(np.mean(of_repeats)))
    return found


def test_a_class_mean_is_the_direction_of_the_mean_feature() -> None:
    features = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 5.0]])
    means = class_means(features, np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(means, [[0.6, 0.8], [0, 1]])


def test_the_similarity_is_the_cosine_to_the_nearest_mean() -> None:
    means = np.array([[1.0, 0.0], [0.6, 0.8]])
    np.testing.assert_allclose(similarity(np.array([[0.0, 7.0], [5.0, 0.0], [-2.0, 0.0]]), means), [0.8, 1, -0.6])


def test_an_image_without_features_is_similar_to_nothing() -> None:
    assert similarity(np.zeros((1, 2)), np.eye(2)) == 0


@pytest.mark.parametrize("n_repeats", [1, 3])
def test_out_of_fold_an_image_is_compared_with_means_without_its_fold(n_repeats: int) -> None:
    features = along_axes()
    folds = group_folds(LABELS, np.arange(12), n_folds=2, n_repeats=n_repeats)
    np.testing.assert_allclose(
        out_of_fold_similarity(features, LABELS, folds), by_hand(features, LABELS, folds), atol=1e-5
    )


def test_an_image_whose_class_is_in_its_fold_alone_does_not_count() -> None:
    folds = np.array([[0, 0, 0, 0, *[0, 1, 2, 3] * 2], [0, 1, 2, 3, *[0, 0, 0, 0], 0, 1, 2, 3]])
    found = out_of_fold_similarity(along_axes(), LABELS, folds)
    np.testing.assert_allclose(found[:4], out_of_fold_similarity(along_axes(), LABELS, folds[1:])[:4])
    np.testing.assert_allclose(found[4:8], out_of_fold_similarity(along_axes(), LABELS, folds[:1])[4:8])
    assert np.isnan(out_of_fold_similarity(along_axes(), LABELS, folds[:1])).tolist() == [True] * 4 + [False] * 8


@pytest.mark.parametrize("n", [19, 20, 25, 100, 1000])
def test_new_images_of_the_same_kind_fall_below_the_threshold_as_often_as_promised(n: int) -> None:
    rng = np.random.default_rng(n)
    seen = rng.normal(size=(4000, n))
    below = [rng.normal() < (unlike_threshold(values) or 0.0) for values in seen]
    assert np.mean(below) == pytest.approx(0.05, abs=0.012)


def test_five_of_a_hundred_images_are_below_the_threshold() -> None:
    values = np.random.default_rng(0).permutation(100).astype(float)
    threshold = unlike_threshold(values)
    assert threshold is not None
    assert (values < threshold).sum() == 5


def test_of_few_images_none_is_below_the_threshold() -> None:
    assert unlike_threshold(np.array([0.7, np.nan, 0.5, 0.9])) == 0.5


def test_without_a_similarity_there_is_no_threshold() -> None:
    assert unlike_threshold(np.full(3, np.nan)) is None
    assert know_classes(np.eye(3), np.arange(3), group_folds(np.arange(3), np.arange(3))).unlike_below is None


def test_known_are_the_means_of_all_images_and_the_quantile_out_of_fold() -> None:
    features, folds = along_axes(), group_folds(LABELS, np.arange(12))
    known = know_classes(features, LABELS, folds)
    assert known.means.dtype == np.float32
    np.testing.assert_allclose(known.means, class_means(features, LABELS, 3), atol=1e-6)
    assert known.unlike_below == min(out_of_fold_similarity(features, LABELS, folds))
    assert known.unlike_below < min(similarity(features, known.means))


@pytest.mark.parametrize("seed", range(3))
def test_the_area_under_the_curve_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, unknown = rng.integers(0, 9, 30).astype(float), rng.integers(0, 7, 20).astype(float)
    expected = roc_auc_score([1] * 30 + [0] * 20, np.concatenate([known, unknown]))
    assert auroc(known, unknown) == pytest.approx(expected)


def test_classes_along_axes_of_their_own_are_told_apart_from_one_that_is_left_out() -> None:
    assert left_out_auroc(along_axes(), LABELS, group_folds(LABELS, np.arange(12))) == 1.0


def test_images_without_a_class_are_told_apart_by_chance() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 200)
    area = left_out_auroc(rng.normal(size=(800, 10)), labels, group_folds(labels, np.arange(800), n_repeats=1))
    assert area == pytest.approx(0.5, abs=0.05)


def test_of_two_classes_none_can_be_left_out() -> None:
    labels = np.array([0, 0, 1, 1])
    assert np.isnan(left_out_auroc(np.eye(4), labels, group_folds(labels, np.arange(4))))


def test_folds_share_out_every_class_and_keep_groups_together() -> None:
    labels = np.repeat(np.arange(3), [10, 20, 7])
    groups = np.arange(37)
    groups[[0, 1]] = 0
    folds = group_folds(labels, groups, n_folds=5, n_repeats=4)
    assert folds.shape == (4, 37)
    assert (folds[:, 0] == folds[:, 1]).all()
    for fold in folds:
        counts = np.bincount(fold[10:30], minlength=5)
        assert counts.tolist() == [4] * 5
    assert len(np.unique(folds, axis=0)) == 4
    np.testing.assert_array_equal(folds, group_folds(labels, groups, n_folds=5, n_repeats=4))
    assert (folds != group_folds(labels, groups, n_folds=5, n_repeats=4, seed=1)).any()
