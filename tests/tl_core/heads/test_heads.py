"""Heads on features: worked out by hand, or by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from tl_core.heads.few_shot import FewShotHead, probe_episodes, propagate_labels
from tl_core.heads.logistic import fit_logistic
from tl_core.heads.prototypes import SHARPNESS
from tl_core.recipes.choices import Head, HeadStart

FEATURES = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, 7.0]])
LABELS = torch.tensor([0, 0, 0, 1])  # classes of different size, hence at different distances from the centre


def started_head(kind: Head) -> FewShotHead:
    head = FewShotHead(kind, 2, 2)
    head.start(FEATURES, LABELS, "prototypes", l2=1.0)
    return head


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_head_is_centred_on_the_mean_of_the_support(kind: Head) -> None:
    assert started_head(kind).centre.tolist() == [1.0, 3.0]


def test_a_linear_head_scales_the_support_to_root_mean_square_length_one() -> None:
    # centred: (0, -3), (2, -3), (-1, 2), (-1, 4); squared lengths 9, 13, 5, 17: mean 11
    head = started_head("linear")
    assert float(head.scale) == pytest.approx(11**0.5)
    assert float(head.points(FEATURES).square().sum(1).mean()) == pytest.approx(1.0)


@torch.no_grad()
def test_a_linear_head_starts_as_the_nearest_class_mean() -> None:
    # Logits are -10 / 2 * |x - p|^2 / 11 up to what both classes share; means are (4/3, 5/3) and (0, 7).
    queries = torch.tensor([[2.0, 1.0], [0.0, 4.0], [-1.0, 2.0]])
    distances = torch.cdist(queries, torch.tensor([[4 / 3, 5 / 3], [0.0, 7.0]])).square()
    logits = started_head("linear")(queries)
    by_hand = -0.5 * SHARPNESS * (distances[:, 0] - distances[:, 1]) / 11
    torch.testing.assert_close(logits[:, 0] - logits[:, 1], by_hand)


@torch.no_grad()
def test_a_cosine_head_starts_with_the_directions_of_the_class_means() -> None:
    head = started_head("cosine")
    points = nn.functional.normalize(FEATURES - FEATURES.mean(0), dim=1)
    directions = nn.functional.normalize(torch.stack([points[:3].mean(0), points[3]]), dim=1)
    torch.testing.assert_close(head(FEATURES), SHARPNESS * points @ directions.T)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_support_images_that_are_all_equal_give_finite_logits(kind: Head) -> None:
    head = FewShotHead(kind, 2, 2)
    head.start(torch.ones(4, 2), LABELS, "prototypes", l2=1.0)
    assert bool(torch.isfinite(head(torch.ones(3, 2))).all())


def random_episodes(b: int, n: int, d: int, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Overlapping classes: support (b, n, d), labels (b, n), queries (b, 20, d)."""
    generator = torch.Generator().manual_seed(n * d)
    labels = torch.arange(n).remainder(n_classes).expand(b, n).contiguous()
    means = torch.randn(b, n_classes, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(b, n, d, generator=generator, dtype=torch.float64)
    support = means.gather(1, labels[:, :, None].expand(b, n, d)) + 1.5 * noise + 2
    return support, labels, means.mean(1, keepdim=True) + torch.randn(b, 20, d, generator=generator) + 2


@pytest.mark.parametrize(
    ("n", "d", "l2"), [(25, 64, 1e-2), (25, 64, 1e-3), (10, 200, 1e-2), (200, 16, 1e-3), (200, 3, 1.0), (5, 5, 1e-2)]
)
def test_logistic_regression_is_that_of_scikit_learn(n: int, d: int, l2: float) -> None:
    support, labels, queries = random_episodes(3, n, d, n_classes=5)
    weight, bias = fit_logistic(support, labels, 5, l2, tolerance=1e-9)
    ours = torch.softmax(queries @ weight.mT + bias[:, None], dim=2)
    for i in range(3):
        judge = LogisticRegression(C=1 / (n * l2), tol=1e-10, max_iter=10_000).fit(support[i], labels[i])
        np.testing.assert_allclose(ours[i].numpy(), judge.predict_proba(queries[i]), atol=5e-4)


def test_label_smoothing_keeps_the_probabilities_of_separable_points_from_one() -> None:
    points = torch.eye(3, dtype=torch.float64)[None]
    weight, bias = fit_logistic(points, torch.arange(3)[None], 3, l2=1e-9, label_smoothing=0.3)
    probabilities = torch.softmax(points @ weight.mT + bias[:, None], dim=2)[0]
    torch.testing.assert_close(probabilities.diagonal(), torch.full((3,), 0.8, dtype=torch.float64), rtol=1e-3, atol=0)


def test_a_penalty_without_bound_leaves_the_shares_of_the_classes() -> None:
    points = torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[0] * 7 + [1] * 3])
    weight, bias = fit_logistic(points, labels, 2, l2=1e6)
    probabilities = torch.softmax(points @ weight.mT + bias[:, None], dim=2)
    torch.testing.assert_close(probabilities[0, :, 0], torch.full((10,), 0.7, dtype=torch.float64), rtol=1e-3, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("how", ["prototypes", "probe"])
def test_many_episodes_at_once_are_each_what_one_head_gives(how: HeadStart) -> None:
    support, labels, queries = random_episodes(4, 15, 30, n_classes=3)
    together = probe_episodes(support, labels, queries, how, l2=1e-2)
    for i in range(4):
        head = FewShotHead("linear", 30, 3).double()
        head.start(support[i], labels[i], how, l2=1e-2)
        torch.testing.assert_close(together[i], head(queries[i]), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_probe_does_not_depend_on_the_units_of_the_features() -> None:
    support, labels, queries = random_episodes(1, 15, 30, n_classes=3)
    small = probe_episodes(support, labels, queries, "probe", l2=1e-2)
    large = probe_episodes(1000 * support + 5, labels, 1000 * queries + 5, "probe", l2=1e-2)
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)


def test_a_cosine_head_starts_from_prototypes_whatever_is_asked_for() -> None:
    heads = [FewShotHead("cosine", 2, 2) for _ in range(2)]
    heads[0].start(FEATURES, LABELS, "prototypes", l2=1.0)
    heads[1].start(FEATURES, LABELS, "probe", l2=1.0)
    assert torch.equal(heads[0].weight, heads[1].weight)


def test_an_episode_is_solved_to_the_same_bits_whoever_is_beside_it() -> None:
    support, labels, queries = random_episodes(6, 20, 30, 4)
    support = support * torch.logspace(-2, 2, 6)[:, None, None]  # some arrive long before others
    together = probe_episodes(support, labels, queries, "probe", 1e-4)
    for i in range(6):
        alone = probe_episodes(support[i : i + 1], labels[i : i + 1], queries[i : i + 1], "probe", 1e-4)
        assert torch.equal(together[i], alone[0])


def test_labels_travel_along_a_chain_of_queries() -> None:
    # Two half circles: the far ends of each lie nearer to the other class's support image than to their own.
    angles = torch.linspace(0, 2.6, 80)
    first = torch.stack([angles.cos(), angles.sin()], 1)
    second = -first
    support = torch.stack([first[0], second[0]])[None]
    queries = torch.cat([first[1:], second[1:]])[None]
    labels = torch.tensor([[0, 1]])
    truth = torch.tensor([0] * 79 + [1] * 79)
    by_nearest = probe_episodes(support, labels, queries, "prototypes", 1.0)[0].argmax(1)
    assert bool((by_nearest != truth).any())
    assert torch.equal(propagate_labels(support, labels, queries)[0].argmax(1), truth)
