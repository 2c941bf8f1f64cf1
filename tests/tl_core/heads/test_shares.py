"""What a class counts: weights and shifts that are worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tl_core.heads.cosine import CosineHead
from tl_core.heads.head import Head
from tl_core.heads.linear import LinearHead
from tl_core.heads.prototypes import PrototypeHead
from tl_core.heads.shares import class_shifts, image_weights


def test_weights_of_the_images_that_are_kept() -> None:
    labels, kept = torch.tensor([0, 0, 0, 1]), torch.tensor([[True, True, False, True]])
    torch.testing.assert_close(image_weights(labels, kept, "data"), torch.tensor([[1.0, 1, 0, 1]]) / 3)
    torch.testing.assert_close(image_weights(labels, kept, "balanced"), torch.tensor([[0.25, 0.25, 0, 0.5]]))


def test_shifts_are_the_logarithms_of_ratios() -> None:
    shifts = class_shifts(torch.tensor([[8, 2], [5, 5]]), "balanced")
    assert float(shifts[0, 0] - shifts[0, 1]) == pytest.approx(math.log(4))
    assert shifts[1].tolist() == [0.0, 0.0], "to the last bit: episodes stay what they are"
    assert class_shifts(torch.tensor([8, 2]), "data").tolist() == [0.0, 0.0]


def test_a_class_without_an_image_has_a_finite_shift() -> None:
    assert class_shifts(torch.tensor([3, 0]), "balanced").isfinite().all()


@pytest.mark.parametrize(("head", "moves"), [(LinearHead, True), (PrototypeHead, False), (CosineHead, False)])
def test_only_a_head_that_learns_shares_has_them_taken_off(head: type[Head], moves: bool) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(12, 3), torch.tensor([0] * 9 + [1] * 3)
    built = head(3, 2)
    built.start(features, labels, l2=1.0)
    before = built(features)
    built.take_off_shares(labels, "balanced")
    gained = (built(features) - before).detach()
    expected = torch.tensor([[-0.5, 0.5]]) * math.log(3) * moves
    torch.testing.assert_close(gained, expected.expand(12, 2), atol=1e-5, rtol=0)
