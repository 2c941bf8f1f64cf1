"""Heads on features: worked out by hand, or by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.heads.head import Head, SolvedHead
from tl_core.heads.linear import LinearHead
from tl_core.heads.logistic import fit_logistic
from tl_core.heads.prototypes import SHARPNESS, PrototypeHead
from tl_core.heads.table import build_head, head_class
from tl_core.recipes.heads import HEADS, few_shot_heads, train_heads

FEATURES = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, 7.0]])
LABELS = torch.tensor([0, 0, 0, 1])  # classes of different size, hence at different distances from the centre


def started_head(kind: str) -> Head:
    head = build_head(kind, 2, 2)
    head.start(FEATURES, LABELS, l2=1.0)
    return head


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_of_the_table_is_built_by_its_name(kind: str) -> None:
    head = build_head(kind, 2, 3)
    assert type(head) is head_class(kind)
    assert head(torch.zeros(4, 2)).shape == (4, 3)


def test_an_unknown_head_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=f"expected a head out of {', '.join(HEADS)}, got 'rbf'"):
        build_head("rbf", 2, 2)


def test_every_head_is_offered_somewhere() -> None:
    assert {*few_shot_heads(), *train_heads()} == set(HEADS)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_centred_on_the_mean_of_the_support(kind: str) -> None:
    assert started_head(kind).centre.tolist() == [1.0, 3.0]


def test_a_linear_head_scales_the_support_to_root_mean_square_length_one() -> None:
    # centred: (0, -3), (2, -3), (-1, 2), (-1, 4); squared lengths 9, 13, 5, 17: mean 11
    head = started_head("linear")
    assert float(head.scale) == pytest.approx(11**0.5)
    assert float(((FEATURES - head.centre) / head.scale).square().sum(1).mean()) == pytest.approx(1.0)


@torch.no_grad()
def test_a_prototype_head_finds_the_nearest_class_mean() -> None:
    # Logits are -10 / 2 * |x - p|^2 / 11 up to what both classes share; means are (4/3, 5/3) and (0, 7).
    queries = torch.tensor([[2.0, 1.0], [0.0, 4.0], [-1.0, 2.0]])
    distances = torch.cdist(queries, torch.tensor([[4 / 3, 5 / 3], [0.0, 7.0]])).square()
    logits = started_head("prototypes")(queries)
    by_hand = -0.5 * SHARPNESS * (distances[:, 0] - distances[:, 1]) / 11
    torch.testing.assert_close(logits[:, 0] - logits[:, 1], by_hand)


@torch.no_grad()
def test_a_cosine_head_starts_with_the_directions_of_the_class_means() -> None:
    head = started_head("cosine")
    points = nn.functional.normalize(FEATURES - FEATURES.mean(0), dim=1)
    directions = nn.functional.normalize(torch.stack([points[:3].mean(0), points[3]]), dim=1)
    torch.testing.assert_close(head(FEATURES), SHARPNESS * points @ directions.T)


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS)
def test_support_images_that_are_all_equal_give_finite_logits(kind: str) -> None:
    head = build_head(kind, 2, 2)
    head.start(torch.ones(4, 2), LABELS, l2=1.0)
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


def test_infinite_l2_predicts_class_priors() -> None:
    points = torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[0] * 7 + [1] * 3])
    weight, bias = fit_logistic(points, labels, 2, l2=1e6)
    probabilities = torch.softmax(points @ weight.mT + bias[:, None], dim=2)
    torch.testing.assert_close(probabilities[0, :, 0], torch.full((10,), 0.7, dtype=torch.float64), rtol=1e-3, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", [LinearHead, PrototypeHead])
def test_many_episodes_at_once_have_the_logits_of_one_at_a_time(kind: type[SolvedHead]) -> None:
    support, labels, queries = random_episodes(4, 15, 30, n_classes=3)
    together = kind.solve_episodes(support, labels, queries, l2=1e-2)
    for i in range(4):
        head = kind(30, 3).double()
        head.start(support[i], labels[i], l2=1e-2)
        torch.testing.assert_close(together[i], head(queries[i]), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_probe_does_not_depend_on_the_units_of_the_features() -> None:
    support, labels, queries = random_episodes(1, 15, 30, n_classes=3)
    small = LinearHead.solve_episodes(support, labels, queries, l2=1e-2)
    large = LinearHead.solve_episodes(1000 * support + 5, labels, 1000 * queries + 5, l2=1e-2)
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)


def test_an_episode_is_solved_to_the_same_bits_whoever_is_beside_it() -> None:
    support, labels, queries = random_episodes(6, 20, 30, 4)
    support = support * torch.logspace(-2, 2, 6)[:, None, None]  # some arrive long before others
    together = LinearHead.solve_episodes(support, labels, queries, 1e-4)
    for i in range(6):
        alone = LinearHead.solve_episodes(support[i : i + 1], labels[i : i + 1], queries[i : i + 1], 1e-4)
        assert torch.equal(together[i], alone[0])
