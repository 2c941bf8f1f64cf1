"""The learning-rate range test: a curve to read, a rate that works, and a model as it was before."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.recipes.choices import Optimizer
from tl_core.training.loop import fit, start_training
from tl_core.training.lr_finder import DIVERGENCE, LrCurve, lr_range_test
from tl_core.training.optimizers import FitOptions, build_optimizer

RATES = (1e-5, 10.0)


def separable_batches(n: int, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Three classes that a linear model can tell apart."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        labels = torch.arange(size) % 3
        yield torch.eye(6)[labels] * 2 + 0.1 * torch.randn(size, 6, generator=generator), labels


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Linear layers and dropout draw from the global generator."""
    torch.manual_seed(0)


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


def options(max_lr: float, steps: int = 1, optimizer: Optimizer = "sgd") -> FitOptions:
    return FitOptions(1, steps, max_lr, optimizer)


def run_test(model: nn.Module, n_batches: int = 60, n_steps: int = 60, optimizer: Optimizer = "sgd") -> LrCurve:
    built = build_optimizer(model, options(RATES[0], optimizer=optimizer))
    return lr_range_test(model, separable_batches(n_batches), built, RATES, n_steps)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_parameters_and_buffers_are_bit_identical_afterwards(optimizer: Optimizer) -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run_test(model, optimizer=optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_as_it_was_afterwards(training: bool) -> None:
    model = small_model().train(training)
    run_test(model)
    assert [module.training for module in model.modules()] == [training] * len(list(model.modules()))


def test_a_batch_norm_that_was_set_to_evaluation_alone_stays_so() -> None:
    model = small_model().train()
    model[1].eval()
    run_test(model)
    assert [module.training for module in model] == [True, False, True, True, True]


def test_no_gradient_is_left_behind() -> None:
    model = small_model()
    run_test(model)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_model_is_as_it_was_even_if_the_test_fails() -> None:
    model = small_model().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError):
        run_test(model, n_batches=5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_the_rates_grow_geometrically_from_the_first_one() -> None:
    curve = run_test(small_model())
    assert curve.rates[0] == RATES[0]
    growth = (RATES[1] / RATES[0]) ** (1 / 59)
    assert [after / before for before, after in pairwise(curve.rates)] == pytest.approx(
        [growth] * (len(curve.rates) - 1)
    )
    assert len(curve.losses) == len(curve.rates)


def test_an_undisturbed_walk_ends_at_the_last_rate() -> None:
    model = nn.Linear(6, 3)
    built = build_optimizer(model, options(1e-6))
    curve = lr_range_test(model, separable_batches(20), built, (1e-6, 1e-4), 20)
    assert len(curve.rates) == 20
    assert curve.rates[-1] == pytest.approx(1e-4)


def test_the_walk_stops_when_the_loss_explodes() -> None:
    # Separable points alone never explode: a wrong label among them makes every large step cost more.
    wrong = ((inputs, (labels + (torch.arange(16) == 0)) % 3) for inputs, labels in separable_batches(100))
    model = nn.Linear(6, 3)
    curve = lr_range_test(model, wrong, build_optimizer(model, options(1e-4)), (1e-4, 1e4), 100)
    assert 10 <= len(curve.rates) < 100
    lowest = list(itertools.accumulate(curve.losses, min))
    assert all(loss <= DIVERGENCE * low for loss, low in zip(curve.losses[10:], lowest[10:], strict=True))


@pytest.mark.parametrize("build", [small_model, lambda: nn.Linear(6, 3)], ids=["network", "linear"])
def test_the_suggestion_lies_inside_the_tested_range(build: Callable[[], nn.Module]) -> None:
    curve = run_test(build())
    assert curve.rates[0] < curve.suggestion < curve.rates[-1]


def final_loss(model: nn.Module, max_lr: float, steps: int = 60) -> float:
    chosen = options(max_lr, steps)
    return next(iter(fit(start_training(model, chosen), lambda _: separable_batches(steps), chosen))).loss


def test_the_suggestion_trains_and_the_first_rate_does_not() -> None:
    suggestion = run_test(small_model()).suggestion
    model = small_model()
    trained = final_loss(model, suggestion)
    assert trained < 0.5 * final_loss(small_model(), RATES[0])
    inputs, labels = next(separable_batches(1))
    assert torch.equal(model.eval()(inputs).argmax(1), labels)


@pytest.mark.parametrize(("n_batches", "n_steps"), [(9, 60), (60, 9), (0, 60)])
def test_too_few_points_are_refused_with_both_numbers(n_batches: int, n_steps: int) -> None:
    with pytest.raises(InputError, match=rf"saw {min(n_batches, n_steps)} steps .* needs at least 10"):
        run_test(small_model(), n_batches, n_steps)


def test_ten_points_are_enough() -> None:
    assert len(run_test(small_model(), n_batches=10).rates) == 10


def test_a_loss_that_is_never_a_number_is_refused() -> None:
    model = nn.Linear(6, 3)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(InputError, match="saw 0 steps"):
        run_test(model)


def test_no_more_batches_are_drawn_than_steps_are_made() -> None:
    drawn = itertools.count()
    batches = (batch for batch in separable_batches(100) if next(drawn) >= 0)
    model = small_model()
    curve = lr_range_test(model, batches, build_optimizer(model, options(1e-5)), (1e-5, 1e-4), 20)
    assert len(curve.rates) == next(drawn) == 20
