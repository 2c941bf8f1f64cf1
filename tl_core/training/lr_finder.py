"""The learning-rate range test (Smith, 2017): train with a rate that grows until the loss explodes, then look back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.networks.batch_norms import train_mode
from tl_core.training.loop import Objective, classification

RATES = (1e-5, 10.0)
"""Default first and last learning rate: wide enough for SGD and Adam alike."""
N_STEPS = 100
SMOOTHING = 0.9
DIVERGENCE = 4.0
_MIN_POINTS = 10


@dataclass(frozen=True)
class LrCurve:
    """Result of a range test.

    Attributes:
        rates: learning rates, growing geometrically.
        losses: exponentially smoothed and bias-corrected loss at each rate.
        suggestion: the rate where the loss falls most steeply per decade.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def lr_range_test(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    rates: tuple[float, float],
    n_steps: int,
    objective: Objective | None = None,
    *,
    batch_statistics: bool = True,
) -> LrCurve:
    """Run the test; afterwards the model, its mode and its batch-norm statistics are as they were.

    Args:
        model: inputs to logits.
        batches: at least `_MIN_POINTS` batches of (inputs, labels); one is used per step.
        optimizer: over the model's parameters; spent afterwards.
        rates: first and last learning rate.
        n_steps: steps between them.
        objective: by default cross-entropy.
        batch_statistics: true if batch norm uses the statistics of the batches, as the training to come will.

    Raises:
        InputError: the loss explodes, or the batches end, before there is a curve to read.
    """
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    modes = [(module, module.training) for module in model.modules()]
    try:
        train_mode(model, batch_statistics)
        curve = _walk(model, batches, optimizer, rates, n_steps, objective or classification())
    finally:
        model.load_state_dict(before)
        for module, training in modes:
            module.training = training
        model.zero_grad(set_to_none=True)
    if len(curve) < _MIN_POINTS:
        raise InputError(f"the range test saw {len(curve)} steps before it ended; it needs at least {_MIN_POINTS}")
    tried, losses = zip(*curve, strict=True)
    return LrCurve(tried, losses, _steepest(tried, losses))


def _walk(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    rates: tuple[float, float],
    n_steps: int,
    objective: Objective,
) -> list[tuple[float, float]]:
    growth = (rates[1] / rates[0]) ** (1 / max(1, n_steps - 1))
    curve: list[tuple[float, float]] = []
    average, lowest = 0.0, math.inf
    for step, (inputs, labels) in zip(range(n_steps), batches, strict=False):
        rate = rates[0] * growth**step
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, _ = objective(model(inputs).float(), labels)
        average = SMOOTHING * average + (1 - SMOOTHING) * float(loss.detach())
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        lowest = min(lowest, smoothed)
        if not math.isfinite(smoothed) or (step >= _MIN_POINTS and smoothed > DIVERGENCE * lowest):
            break
        curve.append((rate, smoothed))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return curve


def _steepest(rates: tuple[float, ...], losses: tuple[float, ...]) -> float:
    # The first points carry the smoothing's start and the last ones the explosion: neither is a slope to follow.
    inner = range(1, len(rates) - 1)
    slopes = {i: losses[i + 1] - losses[i - 1] for i in inner}
    return rates[min(slopes, key=lambda i: slopes[i])]
