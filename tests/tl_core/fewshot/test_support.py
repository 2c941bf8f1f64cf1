"""Batches of support images, and the objective that pseudo-episodes train by."""

from __future__ import annotations

import math

import pytest
import torch

from tl_core.fewshot.support import draw_batches, pseudo_episodes
from tl_core.heads.prototypes import SHARPNESS

LABELS = torch.tensor([0, 0, 1, 1])
CORNERS = torch.tensor([[1.0, 1.0], [1.0, 1.0], [3.0, 1.0], [3.0, 1.0]])  # on both sides of their mean, (2, 1)


def test_views_beside_their_own_prototype_cost_next_to_nothing() -> None:
    loss, hits = pseudo_episodes(2)(torch.cat([CORNERS, CORNERS]), LABELS)
    # Cosine 1 with the own prototype, -1 with the other.
    assert float(loss) == pytest.approx(math.log1p(math.exp(-2 * SHARPNESS)), abs=1e-6)
    assert int(hits) == 4


def test_views_beside_the_other_prototype_are_all_wrong() -> None:
    loss, hits = pseudo_episodes(2)(torch.cat([CORNERS, CORNERS.flip(0)]), LABELS)
    assert round(float(loss), 4) == 2 * SHARPNESS
    assert int(hits) == 0


def test_a_class_without_an_image_in_the_batch_draws_nobody() -> None:
    loss, hits = pseudo_episodes(3)(torch.cat([CORNERS, CORNERS]), LABELS)
    assert math.isfinite(float(loss))
    assert int(hits) == 4


def test_pseudo_episodes_have_the_images_before_their_views() -> None:
    views = torch.arange(12.0).view(4, 3, 1)
    for inputs, labels in draw_batches(views, LABELS, 5, torch.Generator().manual_seed(0), paired=True):
        images, drawn = inputs[:, 0].split(4)
        rows = (images / 3).long()
        assert images.tolist() == (3.0 * rows).tolist()
        assert (drawn / 3).long().tolist() == rows.tolist()
        assert labels.tolist() == LABELS[rows].tolist()
