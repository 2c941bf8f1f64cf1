"""Which batch norms learn statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tl_core.errors import InputError
from tl_core.networks.batch_norms import HeadNorm, has_statistics, learns_statistics, train_mode


def network(*, learnt: bool) -> nn.Module:
    norm = nn.BatchNorm2d(2)
    if learnt:
        norm(torch.ones(3, 2, 4, 4))
    return nn.Sequential(nn.Conv2d(3, 2, 3), norm)


@pytest.mark.parametrize(
    ("asked", "learnt", "learns"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("learn", True, True),
        ("learn", False, True),
        ("keep", True, False),
    ],
)
def test_statistics_that_came_with_the_weights_are_kept_unless_asked(asked: str, learnt: bool, learns: bool) -> None:
    assert has_statistics(network(learnt=learnt)) is learnt
    assert learns_statistics(asked, network(learnt=learnt)) is learns  # type: ignore[arg-type]


def test_what_has_none_cannot_keep_them_and_what_needs_none_can() -> None:
    with pytest.raises(InputError, match="expected norm_statistics auto or learn for new batch norms, got keep"):
        learns_statistics("keep", network(learnt=False))
    assert not learns_statistics("keep", nn.Sequential(nn.Conv2d(3, 2, 3), nn.LayerNorm(4)))


def test_a_heads_norm_learns_always_in_training_and_a_frozen_one_never() -> None:
    backbone, frozen, head = nn.BatchNorm2d(2), nn.BatchNorm2d(2).requires_grad_(False), HeadNorm(2)
    model = nn.ModuleList([backbone, frozen, head])
    train_mode(model, batch_statistics=False)
    assert [norm.training for norm in (backbone, frozen, head)] == [False, False, True]
    train_mode(model, batch_statistics=True)
    assert [norm.training for norm in (backbone, frozen, head)] == [True, False, True]
