"""Learning curve: each point knows fewer images, and no image helps to predict itself."""

from __future__ import annotations

import numpy as np
import torch

from tl_core.crossvalidation.folds import Groups, assign_folds
from tl_core.crossvalidation.learning_curve import draw_learning_curve
from tl_core.crossvalidation.procedure import Candidate, LabelledFeatures


def made(per_class: int, signal: float) -> LabelledFeatures:
    labels = np.arange(3 * per_class) % 3
    noise = torch.randn(len(labels), 30, generator=torch.Generator().manual_seed(0))
    return LabelledFeatures.of({"a": noise + signal * torch.eye(3, 30)[labels]}, labels, 3)


def test_more_images_help_where_there_is_something_to_learn() -> None:
    data = made(40, signal=2.0)
    folds = assign_folds(data.labels.numpy(), Groups(np.arange(120), 120), 1, 0, 5)
    curve = draw_learning_curve(data, Candidate("a", 1e-2), folds, "balanced", seed=0)
    assert [round(point.n_images) for point in curve] == [12, 24, 48, 96]
    assert curve[-1].accuracy.value > curve[0].accuracy.value + 0.1


def test_without_a_signal_every_point_is_chance() -> None:
    data = made(40, signal=0.0)
    folds = assign_folds(data.labels.numpy(), Groups(np.arange(120), 120), 1, 0, 5)
    curve = draw_learning_curve(data, Candidate("a", 1e-2), folds, "data", seed=0)
    assert all(point.accuracy.low < 1 / 3 < point.accuracy.high for point in curve)


def test_shares_that_change_no_class_are_left_out() -> None:
    data = made(3, signal=2.0)
    folds = assign_folds(data.labels.numpy(), Groups(np.arange(9), 9), 1, 0)
    curve = draw_learning_curve(data, Candidate("a", 1e-2), folds, "balanced", seed=0)
    assert [round(point.n_images) for point in curve] == [3, 6]


def test_which_images_are_left_is_a_function_of_the_seed() -> None:
    data = made(20, signal=1.0)
    folds = assign_folds(data.labels.numpy(), Groups(np.arange(60), 60), 1, 0, 5)
    one, again, other = (draw_learning_curve(data, Candidate("a", 1e-2), folds, "balanced", seed) for seed in (0, 0, 1))
    assert one == again
    assert one[0] != other[0]
    assert one[-1] == other[-1], "all images are there, whatever the seed"
