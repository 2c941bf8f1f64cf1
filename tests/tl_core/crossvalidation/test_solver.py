"""The weighted solver against scikit-learn's, and against itself on fewer points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tl_core.crossvalidation.solver import SharedPoints
from tl_core.heads.shares import image_weights
from tl_core.recipes.choices import Priors

N, D, C = 60, 90, 3


@pytest.fixture(scope="module")
def points() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.zeros(N - 20), torch.ones(12), torch.full((8,), 2)]).long()
    means = torch.randn(C, D, generator=generator)
    return means[labels] * 0.4 + torch.randn(N, D, generator=generator) + 5, labels


def held_out() -> Tensor:
    kept = torch.ones(3, N, dtype=torch.bool)
    kept[0, ::4] = False
    kept[1, 1::4] = False
    return kept


@pytest.mark.parametrize("priors", ["data", "balanced"])
@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_solutions_are_those_of_scikit_learn(points: tuple[Tensor, Tensor], priors: Priors, l2: float) -> None:
    features, labels = points
    weights = image_weights(labels, held_out(), priors)
    solved = SharedPoints(features, labels, C, weights).fit(torch.arange(3), torch.full((3,), l2), 1e-5)
    for fit in range(3):
        weight, kept = weights[fit].double(), weights[fit] > 0
        # Centre and scale by hand, from the images of this fit alone.
        centred = features.double() - weight @ features.double()
        scaled = (centred / (weight @ centred.square().sum(1)).sqrt()).numpy()
        reference = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10000)
        reference.fit(scaled[kept], labels[kept], sample_weight=weight[kept].numpy())
        np.testing.assert_allclose(
            solved.logits(fit, torch.arange(N)).softmax(1).numpy(), reference.predict_proba(scaled), atol=2e-4
        )


@pytest.mark.parametrize("l2", [1e-2, 1e-4])
def test_classes_that_only_two_of_many_share_are_solved_though_the_first_steps_are_too_long(l2: float) -> None:
    # All weight is on two of 40 classes, which share their points: the loss bends 20 times as much as at the start.
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.arange(2).repeat(40), torch.arange(2, 40)])
    features = torch.randn(len(labels), 4, generator=generator) + 0.2 * labels[:, None].clamp(max=1)
    weights = torch.where(labels < 2, 1.0, 1e-4)[None]
    weights = weights / weights.sum()
    solved = SharedPoints(features, labels, 40, weights).fit(torch.zeros(1).long(), torch.tensor([l2]), 1e-5)
    weight = weights[0].double()
    centred = features.double() - weight @ features.double()
    scaled = (centred / (weight @ centred.square().sum(1)).sqrt()).numpy()
    reference = LogisticRegression(C=1 / l2, tol=1e-9, max_iter=20000)
    reference.fit(scaled, labels, sample_weight=weight.numpy())
    found = solved.logits(0, torch.arange(len(labels))).softmax(1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(scaled), atol=2e-3)


def test_heads_give_the_same_logits_on_the_points_as_they_are(points: tuple[Tensor, Tensor]) -> None:
    features, labels = points
    shared = SharedPoints(features, labels, C, image_weights(labels, held_out(), "balanced"))
    solved = shared.fit(torch.arange(3), torch.full((3,), 1e-2))
    heads = solved.heads()
    for fit in range(3):
        own = (features - heads.centre[fit]) / heads.scale[fit] @ heads.weight[fit].T + heads.bias[fit]
        torch.testing.assert_close(own, solved.logits(fit, torch.arange(N)), atol=1e-4, rtol=1e-4)


def test_images_held_out_leave_no_trace(points: tuple[Tensor, Tensor]) -> None:
    features, labels = points
    kept = held_out()[:1]
    altered = torch.where(kept[0][:, None], features, 50 + 3 * features)
    solved = [
        SharedPoints(of, labels, C, image_weights(labels, kept, "data")).fit(
            torch.tensor([0]), torch.tensor([1e-2]), 1e-6
        )
        for of in (features, altered)
    ]
    rows = kept[0].nonzero()[:, 0]
    torch.testing.assert_close(solved[0].logits(0, rows), solved[1].logits(0, rows), atol=2e-3, rtol=1e-3)


def test_copies_of_an_image_weigh_as_one_of_twice_the_weight(points: tuple[Tensor, Tensor]) -> None:
    features, labels = points
    once = torch.full((1, N), 1.0)
    once[0, 0] = 2
    twice = torch.full((1, N + 1), 1 / (N + 1))
    fits, l2 = torch.tensor([0]), torch.tensor([1e-2])
    weighted = SharedPoints(features, labels, C, once / once.sum()).fit(fits, l2, 1e-6)
    doubled = SharedPoints(torch.cat([features, features[:1]]), torch.cat([labels, labels[:1]]), C, twice)
    rows = torch.arange(N)
    torch.testing.assert_close(
        weighted.logits(0, rows), doubled.fit(fits, l2, 1e-6).logits(0, rows), atol=2e-3, rtol=1e-3
    )


def test_parts_that_are_solved_apart_give_the_same(
    points: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = points
    shared = SharedPoints(features, labels, C, image_weights(labels, held_out(), "data"))
    fits, l2 = torch.tensor([0, 1, 2, 0]), torch.tensor([1e-1, 1e-2, 1e-3, 1e-2])
    together = shared.fit(fits, l2)
    monkeypatch.setattr("tl_core.crossvalidation.solver._MAX_ELEMENTS", N * C)
    apart = shared.fit(fits, l2)
    torch.testing.assert_close(together.weight, apart.weight, atol=1e-3, rtol=1e-3)
