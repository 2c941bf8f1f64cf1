"""The temperature of few images: the best one for images left out, and left alone where nothing can be left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tl_core.heads.head import penalty_of
from tl_core.heads.linear import LinearHead
from tl_core.heads.prototypes import PrototypeHead
from tl_core.heads.temperature import (
    MAX_FOLDS,
    PRIOR_SPREAD,
    TEMPERATURES,
    best_temperatures,
    most_probable,
    solved_temperatures,
    split_folds,
)


def noisy_classes(n_shot: int, noise: float, n_views: int = 1) -> tuple[Tensor, Tensor]:
    """Support (8, 3 * n_shot, n_views, 20) around the corners of a triangle, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(n_shot).expand(8, -1)
    points = torch.eye(20)[labels][:, :, None] + noise * torch.randn(8, 3 * n_shot, n_views, 20, generator=generator)
    return points, labels


def test_the_temperature_is_the_most_probable_one_for_images_left_out() -> None:
    support, labels = noisy_classes(n_shot=4, noise=0.6)
    found = solved_temperatures(PrototypeHead, support, labels, l2=1.0)
    for episode in range(8):
        held_out = (torch.tensor(TEMPERATURES).log() / PRIOR_SPREAD).square() / 2
        for fold in range(4):
            held = torch.arange(12) % 4 == fold
            one, its = support[episode, :, 0], labels[episode]
            (logits,) = PrototypeHead.solve_episodes(one[None, ~held], its[None, ~held], one[None, held], 1.0)
            for i, temperature in enumerate(TEMPERATURES):
                held_out[i] += nn.functional.cross_entropy(logits / temperature, its[held], reduction="sum")
        assert float(found[episode]) == pytest.approx(TEMPERATURES[int(held_out.argmin())], rel=1e-5)


def test_a_fold_is_fitted_with_the_penalty_of_its_own_images() -> None:
    penalties: list[float] = []

    class Recording(LinearHead):
        @staticmethod
        def solve(
            points: Tensor, labels: Tensor, n_classes: int, l2: float, label_smoothing: float
        ) -> tuple[Tensor, Tensor]:
            penalties.append(l2)
            return LinearHead.solve(points, labels, n_classes, l2, label_smoothing)

    solved_temperatures(Recording, *noisy_classes(n_shot=5, noise=0.5), l2=0.01)
    assert penalties == [penalty_of(0.01, 12)] * 5


def test_noise_asks_for_a_higher_temperature() -> None:
    clear, noisy = (solved_temperatures(PrototypeHead, *noisy_classes(5, noise), 1.0) for noise in (0.05, 1.0))
    assert float(clear.max()) < float(noisy.min())


def test_all_views_of_an_image_are_left_out_together() -> None:
    # Were a copy of the left-out image among the rest, its answer would look certain.
    support, labels = noisy_classes(n_shot=3, noise=2.0)
    copies = support.expand(-1, -1, 4, -1)
    torch.testing.assert_close(
        solved_temperatures(LinearHead, copies, labels, 1e-3), solved_temperatures(LinearHead, support, labels, 1e-3)
    )


def test_a_single_shot_leaves_the_temperature_at_one() -> None:
    support, labels = noisy_classes(n_shot=1, noise=1.0)
    assert solved_temperatures(LinearHead, support, labels, 1e-3).tolist() == [1.0] * 8


def test_every_image_is_judged_once_by_a_fold_that_fits_every_class() -> None:
    labels = torch.tensor([0] * 7 + [1] * 6 + [2] * 11)
    folds = split_folds(labels)
    assert len(folds) == MAX_FOLDS
    assert torch.cat([held for _, held in folds]).sort().values.tolist() == list(range(24))
    for kept, held in folds:
        assert not set(kept.tolist()) & set(held.tolist())
        assert labels[kept].unique().tolist() == [0, 1, 2]


def test_logits_that_are_right_by_chance_are_flattened() -> None:
    labels = torch.arange(4).repeat(8)[None]
    sure = 50.0 * nn.functional.one_hot(torch.arange(4).repeat_interleave(8), 4)[None].float()
    assert float(best_temperatures(sure, labels)) > 16


def test_few_images_that_are_all_right_do_not_ask_for_the_lowest_temperature() -> None:
    labels = torch.arange(2).repeat_interleave(5)[None]
    right = nn.functional.one_hot(labels, 2).float()
    (few,), (many,) = best_temperatures(right, labels), best_temperatures(right.repeat(1, 50, 1), labels.repeat(1, 50))
    assert TEMPERATURES[0] < float(many) < float(few) < 1
    assert float(few) > 0.4


@pytest.mark.parametrize(("gain", "is_taken"), [(0.69, False), (0.71, True)])
def test_a_temperature_is_taken_where_the_images_clearly_ask_for_it(gain: float, is_taken: bool) -> None:
    likelihoods = torch.full((1, len(TEMPERATURES)), -9.0)
    likelihoods[0, TEMPERATURES.index(1.0)] = -4.0
    likelihoods[0, TEMPERATURES.index(1.0) + 1] = -4.0 + gain
    assert float(most_probable(likelihoods, evidence=0.7)) == pytest.approx(TEMPERATURES[41] if is_taken else 1.0)


def test_no_images_at_all_would_leave_it_at_one() -> None:
    alike = torch.zeros(1, 10, 2)  # logits that no temperature changes
    assert best_temperatures(alike, torch.zeros(1, 10, dtype=torch.int64)).tolist() == [1.0]
