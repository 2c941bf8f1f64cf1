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
