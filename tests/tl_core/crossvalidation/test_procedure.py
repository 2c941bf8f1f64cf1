"""The nested procedure on made features: what it chooses, and that no image helps to predict itself."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from tl_core.crossvalidation.choice import fit_temperature, log_loss
from tl_core.crossvalidation.folds import Folds, Groups, assign_folds
from tl_core.crossvalidation.procedure import Candidate, LabelledFeatures, fold_logits, run_procedure
from tl_core.crossvalidation.solver import SharedPoints
from tl_core.errors import InputError
from tl_core.heads.shares import image_weights
from tl_core.recipes.choices import Priors
from tl_core.scoring.out_of_fold import OutOfFold

C = 3
CANDIDATES = [Candidate(name, l2) for name in ("noise", "good") for l2 in (1e-1, 1e-2)]


def made(per_class: int, seed: int = 0, n_views: int = 1) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    labels = np.arange(C * per_class) % C
    means = 3 * torch.eye(C, 6)
    good = means[labels][:, None] + torch.randn(len(labels), n_views, 6, generator=generator)
    noise = torch.randn(len(labels), 4, generator=generator)
    return LabelledFeatures.of({"noise": noise, "good": good}, labels, C)


def folds_of(data: LabelledFeatures, n_repeats: int = 2, max_folds: int = 4) -> Folds:
    n = len(data.labels)
    return assign_folds(data.labels.numpy(), Groups(np.arange(n), n), n_repeats, 0, max_folds)


def test_the_better_features_are_chosen_and_the_file_predicts_new_images() -> None:
    data, new = made(20), made(200, seed=1)
    result = run_procedure(data, CANDIDATES, folds_of(data), "data")
    assert result.classifier.candidate.features == "good"
    assert result.classifier.log_losses.shape == (4,)
    accuracy = (result.classifier.logits(new.matrices["good"]).argmax(1) == new.labels).double().mean()
    assert abs(result.out_of_fold.right().mean() - float(accuracy)) < 0.1
    assert result.out_of_fold.probabilities.shape == (2 * 60, C)
    np.testing.assert_allclose(result.out_of_fold.probabilities.sum(1), 1)
    np.testing.assert_array_equal(result.out_of_fold.label, np.tile(data.labels, 2))


def test_each_network_alone_is_the_procedure_without_the_others() -> None:
    data = made(12)
    folds = folds_of(data)
    together = run_procedure(data, CANDIDATES, folds, "data")
    assert list(together.alone) == ["noise", "good"]
    for name, found in together.alone.items():
        single = run_procedure(data, [one for one in CANDIDATES if one.features == name], folds, "data").out_of_fold
        np.testing.assert_array_equal(found.probabilities, single.probabilities)
        chosen = {CANDIDATES[position].features for position in found.candidate}
        assert chosen == {name}
    assert together.alone["noise"].right().mean() < together.alone["good"].right().mean()


def test_without_a_signal_the_estimate_is_chance_whatever_is_chosen() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(90) % C
    noises = {str(i): torch.randn(90, 40, generator=generator) for i in range(6)}
    data = LabelledFeatures.of(noises, labels, C)
    result = run_procedure(data, [Candidate(name, 1e-2) for name in noises], folds_of(data, 3, 5), "data")
    assert abs(result.out_of_fold.right().mean() - 1 / 3) < 0.12


def test_an_images_own_label_does_not_matter_to_its_prediction() -> None:
    data = made(8)
    folds = folds_of(data, 1)
    before = run_procedure(data, CANDIDATES, folds, "data").out_of_fold
    held = np.flatnonzero(folds.of_image[0] == 0)
    labels = data.labels.clone()
    labels[held] = (labels[held] + 1) % C
    altered = LabelledFeatures(data.matrices, labels, C)
    after = run_procedure(altered, CANDIDATES, folds, "data").out_of_fold
    np.testing.assert_allclose(before.probabilities[held], after.probabilities[held], atol=1e-5)


def test_logits_are_those_of_fits_without_the_two_folds() -> None:
    data = made(6)
    fold = torch.arange(18) // 3 % 3
    logits = fold_logits(data, [Candidate("good", 1e-2)], fold, 3, "data")
    for outer, inner in ((0, 0), (0, 2), (2, 0)):
        kept = ((fold != outer) & (fold != inner))[None]
        shared = SharedPoints(data.matrices["good"][:, 0], data.labels, C, image_weights(data.labels, kept, "data"))
        alone = shared.fit(torch.tensor([0]), torch.tensor([1e-2])).logits(0, (fold == inner).nonzero()[:, 0])
        torch.testing.assert_close(logits[0, outer, fold == inner], alone, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("priors", "expected"), [("balanced", [1 / 3, 1 / 3, 1 / 3]), ("data", [0.5, 0.3, 0.2])])
def test_features_that_say_nothing_leave_what_the_priors_say(priors: Priors, expected: list[float]) -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    data = LabelledFeatures.of({"noise": torch.randn(100, 4, generator=torch.Generator().manual_seed(0))}, labels, C)
    result = run_procedure(data, [Candidate("noise", 1e6)], folds_of(data), priors)
    delivered = result.classifier.logits(torch.zeros(1, 4)).softmax(1)[0]
    np.testing.assert_allclose(delivered, expected, atol=0.01)
    np.testing.assert_allclose(result.out_of_fold.probabilities, np.tile(expected, (200, 1)), atol=0.02)


def test_a_class_with_few_images_is_found_as_often_as_one_with_many() -> None:
    generator, means = torch.Generator().manual_seed(0), 2 * torch.eye(2, 30)
    uneven, even = np.repeat([0, 1], [100, 6]), np.repeat([0, 1], 500)
    points, new = (means[of] + torch.randn(len(of), 30, generator=generator) for of in (uneven, even))
    data = LabelledFeatures.of({"two": points}, uneven, 2)
    recalls = []
    for priors in get_args(Priors):
        result = run_procedure(data, [Candidate("two", 1e-3)], folds_of(data), priors)
        recalls.append((result.classifier.logits(new).argmax(1) == 1)[even == 1].double().mean())
    assert recalls[0] > recalls[1] + 0.2


def test_the_logits_of_the_file_are_divided_by_its_temperature() -> None:
    data = made(12)
    classifier = run_procedure(data, [Candidate("good", 1.0)], folds_of(data), "data").classifier
    assert classifier.choice.temperature < 0.8, "a strong penalty makes a head less sure than it could be"
    points = data.matrices["good"][:, 0]
    plain = (points - classifier.centre) / classifier.scale @ classifier.weight.T + classifier.bias
    expected = (plain / classifier.choice.temperature).softmax(1)
    torch.testing.assert_close(classifier.logits(points).softmax(1), expected)


def test_views_of_an_image_share_its_weight_and_are_averaged() -> None:
    data = made(6)
    doubled = LabelledFeatures.of({"good": data.matrices["good"].expand(-1, 2, -1)}, data.labels.numpy(), C)
    candidates, folds = [Candidate("good", 1e-2)], folds_of(data, 1)
    once, twice = (run_procedure(of, candidates, folds, "data") for of in (data, doubled))
    np.testing.assert_allclose(once.out_of_fold.probabilities, twice.out_of_fold.probabilities, atol=1e-3)
    new = made(5, seed=2).matrices["good"]
    one_view, two_views = once.classifier.logits(new), twice.classifier.logits(new.expand(-1, 2, -1))
    torch.testing.assert_close(one_view.softmax(1), two_views.softmax(1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("per_class", "n_folds"), [(3, 3), (2, 2)])
def test_a_handful_of_images_is_enough(per_class: int, n_folds: int) -> None:
    data = made(per_class)
    folds = folds_of(data, 2, 10)
    assert folds.n_folds == n_folds
    result = run_procedure(data, CANDIDATES, folds, "balanced")
    assert np.isfinite(result.out_of_fold.probabilities).all()
    if n_folds == 2:  # nothing left to choose on
        assert (result.classifier.choice.candidate, result.classifier.choice.temperature) == (0, 1.0)
        assert np.isnan(result.out_of_fold.smaller).all()


def test_the_same_folds_give_the_same_bits() -> None:
    data = made(6)
    first, second = (run_procedure(data, CANDIDATES, folds_of(data), "data") for _ in range(2))
    for name in OutOfFold.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first.out_of_fold, name), getattr(second.out_of_fold, name))
    assert torch.equal(first.classifier.weight, second.classifier.weight)


def calibrated(n: int, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, C, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return factor * logits[None], labels, torch.full((n,), 1 / n)


def test_a_temperature_is_found_by_many_images_and_held_near_one_by_few() -> None:
    assert fit_temperature(*calibrated(3000, 3.0)) == pytest.approx(3, rel=0.15)
    few = calibrated(20, 3.0)
    assert 1 < fit_temperature(*few) < fit_temperature(*few, spread=10.0)


@pytest.mark.parametrize(("n", "is_clear"), [(4, False), (32, True)])
def test_a_temperature_is_taken_only_where_the_images_clearly_ask_for_one(n: int, is_clear: bool) -> None:
    """Three of four images are right with 88 %: 1.8 is best, and more probable by 0.26 for each four."""
    logits = torch.tensor([1.0, -1.0]).expand(1, n, 2)
    found = fit_temperature(logits, (torch.arange(n) % 4 == 0).long(), torch.full((n,), 1 / n))
    assert (found > 1.1) == is_clear
    assert found == 1 or is_clear


def test_log_loss_is_weighted() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    loss = log_loss(logits, torch.tensor([0, 0]), torch.tensor([0.75, 0.25]))
    assert float(loss) == pytest.approx(0.75 * np.log(2) + 0.25 * np.log(4))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(torch.zeros(2, 4), "expected features of 3 images"), (torch.full((3, 4), torch.nan), "expected finite features")],
)
def test_features_that_do_not_fit_are_refused(matrix: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LabelledFeatures.of({"it": matrix}, np.arange(3), 3)
