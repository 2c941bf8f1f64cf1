"""Mixup and cutmix: the images and the targets are mixed by one and the same share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tl_core.views.mixing import mix_batch

N = 16


def batch() -> tuple[Tensor, Tensor]:
    """Image i is constant i; its target is class i: what a mixture holds can be read off both."""
    images = torch.arange(N, dtype=torch.float64)[:, None, None, None].expand(N, 3, 8, 8).clone()
    return images, torch.eye(N, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_the_mean_of_an_image_is_the_mean_of_its_target(mixup: float, cutmix: float, seed: int) -> None:
    images, targets = mix_batch(*batch(), mixup, cutmix, np.random.default_rng(seed))
    torch.testing.assert_close(images.mean((1, 2, 3)), targets @ torch.arange(N, dtype=torch.float64))
    torch.testing.assert_close(targets.sum(1), torch.ones(N, dtype=torch.float64))


def test_mixup_blends_and_cutmix_pastes() -> None:
    blended, _ = mix_batch(*batch(), 1.0, 0.0, np.random.default_rng(0))
    assert (blended.amax((1, 2, 3)) == blended.amin((1, 2, 3))).all()
    pasted, _ = mix_batch(*batch(), 0.0, 1.0, np.random.default_rng(0))
    assert set(pasted.flatten().tolist()) <= set(range(N))
    assert (pasted.amax((1, 2, 3)) != pasted.amin((1, 2, 3))).any()


def test_with_both_each_is_drawn() -> None:
    kinds = set()
    for seed in range(20):
        images, _ = mix_batch(*batch(), 1.0, 1.0, np.random.default_rng(seed))
        kinds.add(bool(set(images.flatten().tolist()) <= set(range(N))))
    assert kinds == {True, False}


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.0), (0.0, 1.0)])
def test_mixtures_are_a_function_of_the_given_generator_alone(mixup: float, cutmix: float) -> None:
    before = torch.random.get_rng_state()
    first = mix_batch(*batch(), mixup, cutmix, np.random.default_rng(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    second = mix_batch(*batch(), mixup, cutmix, np.random.default_rng(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    other = mix_batch(*batch(), mixup, cutmix, np.random.default_rng(4))
    assert not torch.equal(first[1], other[1])


def test_partners_are_drawn_from_the_whole_batch_and_not_from_the_neighbours() -> None:
    distances = set()
    for seed in range(5):
        _, targets = mix_batch(*batch(), 1.0, 0.0, np.random.default_rng(seed))
        pairs = [row.nonzero().flatten().tolist() for row in targets]
        assert all(len(pair) == 2 for pair in pairs)
        distances |= {abs(second - first) for first, second in pairs}
    assert len(distances) > 5


def test_the_shares_have_the_beta_distribution() -> None:
    alpha = 0.3
    drawn = [mix_batch(*batch(), alpha, 0.0, np.random.default_rng(seed))[1].amax() for seed in range(400)]
    # The larger of the two shares: E max(b, 1 - b), b of Beta(alpha, alpha).
    known = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    assert float(torch.stack(drawn).mean()) == pytest.approx(np.maximum(known, 1 - known).mean(), abs=0.02)


def test_without_either_nothing_changes() -> None:
    images, targets = batch()
    same_images, same_targets = mix_batch(images, targets, 0.0, 0.0, np.random.default_rng(0))
    assert torch.equal(same_images, images)
    assert torch.equal(same_targets, targets)


def test_the_inputs_are_left_alone() -> None:
    images, targets = batch()
    mix_batch(images, targets, 1.0, 1.0, np.random.default_rng(0))
    assert torch.equal(images, batch()[0])
    assert torch.equal(targets, batch()[1])
