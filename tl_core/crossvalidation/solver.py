"""Many logistic regressions on the same points: other image weights, other penalties, solved side by side."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tl_core.compute.devices import one_thread

_MAX_STEPS = 3000
_CHECK_EVERY = 8
_TRUST_EVERY = 4
_SLACK = 1.001
_FEW_POINTS = 500
_MAX_ELEMENTS = 2**24
"""Logits held at once; more problems than fit are solved one part after the other."""


@dataclass(frozen=True)
class LinearHeads:
    """Heads of b fits: logits are (features - centre) / scale @ weight.T + bias.

    Attributes:
        weight: float (b, n_classes, d).
        bias: float (b, n_classes).
        centre: float (b, d), weighted mean of the images that a head was fitted to.
        scale: float (b,), root mean square length of what is left without it.
    """

    weight: Tensor
    bias: Tensor
    centre: Tensor
    scale: Tensor


class SharedPoints:
    """Points of which many subsets are to be fitted, in principal axes that are computed once.

    A rotation changes neither the problem nor its solution, so that axes which all points define tell a fit nothing
    about the points that it holds out.
    """

    def __init__(
        self, points: Tensor, labels: Tensor, n_classes: int, weights: Tensor, shifts: Tensor | None = None
    ) -> None:
        """Rotate the points.

        Args:
            points: float (n, d).
            labels: int64 (n,), values 0 .. n_classes - 1.
            weights: float (b, n) of the fits to come; each row sums to 1.
            shifts: float (b, n_classes), taken off the logits of each fit; none by default.
        """
        self.weights = weights
        self.shifts = weights.new_zeros(len(weights), n_classes) if shifts is None else shifts
        # No fit gives a point more weight than this, so it bounds the curvature of all of them.
        heaviest = weights.amax(0)
        self.total = float(heaviest.sum())
        self.middle = heaviest @ points / self.total
        centred = points - self.middle
        self.axes, self.variance = _weighted_axes(centred, heaviest)
        self.rotated = centred @ self.axes  # (n, r)
        self.targets = F.one_hot(labels, n_classes).to(points.dtype)
        self.centres = weights @ self.rotated  # (b, r)
        lengths = weights @ self.rotated.square().sum(1) - self.centres.square().sum(1)
        self.scales = lengths.clamp(min=1e-12).sqrt()

    def fit(self, fits: Tensor, l2: Tensor, tolerance: float = 1e-4) -> Solutions:
        """Solve some of the fits, each with a penalty of its own.

        The objective is weighted mean cross-entropy + l2 / 2 * |weight|^2 on points that are centred and scaled to root
        mean square length 1 by the weighted images alone; the bias is not penalised. Since the bias takes up any
        centre, scaling is the same as a penalty of l2 * scale^2 on the points as they are.

        Args:
            fits: int64 (m,), rows of `weights`; one may occur more than once.
            l2: float (m,), above 0.
            tolerance: no logit moves by more in a fit's last step.
        """
        n, n_classes = self.targets.shape
        at_once = max(1, _MAX_ELEMENTS // (n * n_classes))
        # Threads that wait for each other in thousands of small steps crawl where another process wants a core.
        with one_thread() if n <= _FEW_POINTS else nullcontext():
            parts = [
                self._descend(some, strength, tolerance)
                for some, strength in zip(fits.split(at_once), l2.split(at_once), strict=True)
            ]
        weight = torch.cat([part[0] for part in parts], dim=1)
        bias = torch.cat([part[1] for part in parts], dim=1)
        return Solutions(self, fits, weight, bias - self.shifts[fits])

    def _descend(self, fits: Tensor, l2: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """Nesterov's gradient with restarts in a part of the metric of Boehning's bound, see `heads.logistic`."""
        penalty = l2 * self.scales[fits].square()
        state = _Descent(self, self.weights[fits], penalty)
        weight, bias = torch.empty_like(state.weight), torch.empty_like(state.bias)
        going = torch.arange(len(fits))
        for step in range(1, _MAX_STEPS + 1):
            moved = state.step(measure=step % _CHECK_EVERY == 0, trust=step % _TRUST_EVERY == 0)
            if moved is None:
                continue
            arrived = moved < tolerance
            weight[:, going[arrived]], bias[:, going[arrived]] = state.weight[:, arrived], state.bias[:, arrived]
            going = going[~arrived]
            if len(going) == 0:
                return weight, bias
            if bool(arrived.any()):
                state.keep(~arrived)
        weight[:, going], bias[:, going] = state.weight, state.bias
        return weight, bias


class _Descent:
    """The fits that are still moving: weight (r, m, c) and bias (1, m, c) with their momentum.

    Boehning's bound on the curvature, 1/2 for each logit, is that of two classes which share an image evenly; with c
    classes the curvature at the start is 1/c. So each fit begins with a part of the bound. Now and then it is measured
    how much the loss bends along a step; where it is more than the part allows, the fit goes back to where it was
    measured last, and the part is doubled, up to the whole bound, which always holds.
    """

    def __init__(self, shared: SharedPoints, weights: Tensor, penalty: Tensor) -> None:
        self.shared = shared
        self.weights = weights.T[:, :, None].contiguous()
        self.penalty = penalty[None, :, None]
        r, m, n_classes = len(shared.variance), len(penalty), shared.targets.shape[1]
        self.part = weights.new_full((1, m, 1), min(1.0, 2 / n_classes))
        self.weight = self.ahead_weight = self.safe_weight = weights.new_zeros(r, m, n_classes)
        self.bias = self.ahead_bias = self.safe_bias = weights.new_zeros(1, m, n_classes)
        self.momentum = weights.new_ones(1, m, 1)

    def step(self, measure: bool, trust: bool) -> Tensor | None:
        """Take one step, and test it if `trust`; if measured, return the largest change of a logit by it (m,)."""
        rotated, shape = self.shared.rotated, self.weight.shape
        curvature = 0.5 * self.part * self.shared.variance[:, None, None] + self.penalty
        bias_curvature = 0.5 * self.part * self.shared.total
        logits = self._logits(self.ahead_weight, self.ahead_bias)
        error = (logits.softmax(2) - self.shared.targets[:, None]).mul_(self.weights)
        slope = (rotated.T @ error.flatten(1)).view(shape)
        step_weight = (slope + self.penalty * self.ahead_weight) / curvature
        step_bias = error.sum(0, keepdim=True) / bias_curvature
        new_weight, new_bias = self.ahead_weight - step_weight, self.ahead_bias - step_bias
        moved_weight, moved_bias = new_weight - self.weight, new_bias - self.bias
        along = _inner(step_weight, moved_weight, curvature) + _inner(step_bias, moved_bias, bias_curvature)
        # Momentum that points uphill is dropped.
        old = torch.where(along > 0, torch.ones_like(along), self.momentum)
        self.momentum = (1 + (1 + 4 * old.square()).sqrt()) / 2
        push = (old - 1) / self.momentum
        self.ahead_weight = new_weight + push * moved_weight
        self.ahead_bias = new_bias + push * moved_bias
        self.weight, self.bias = new_weight, new_bias
        in_doubt = trust and bool((self.part < 1).any())  # the whole bound needs no test
        if not (in_doubt or measure):
            return None
        change = self._logits(step_weight, step_bias)
        largest = change.abs().amax((0, 2))
        if in_doubt:
            failed = self._is_steeper(logits, change, step_weight, step_bias)
            self._go_back(failed)
            largest = largest.where(~failed[0, :, 0], torch.inf)
        return largest if measure else None

    def _logits(self, weight: Tensor, bias: Tensor) -> Tensor:
        return (self.shared.rotated @ weight.flatten(1)).view(-1, *weight.shape[1:]) + bias

    def _is_steeper(self, logits: Tensor, change: Tensor, step_weight: Tensor, step_bias: Tensor) -> Tensor:
        """True for fits (1, m, 1) whose loss bends more along their step than their part of the bound allows."""
        turned = (logits.softmax(2) - (logits - change).softmax(2)) * change
        bend = (turned.sum(2, keepdim=True) * self.weights).sum(0, keepdim=True)
        bound = _inner(step_weight, step_weight, self.shared.variance[:, None, None])
        bound = bound + _inner(step_bias, step_bias, self.shared.total)
        return (bend > _SLACK * 0.5 * self.part * bound) & (self.part < 1)

    def _go_back(self, failed: Tensor) -> None:
        """Take up the fits that failed, bool (1, m, 1), where they were tested last, with twice the part."""
        self.part = torch.where(failed, (2 * self.part).clamp(max=1), self.part)
        self.momentum = torch.where(failed, torch.ones_like(self.momentum), self.momentum)
        self.weight = torch.where(failed, self.safe_weight, self.weight)
        self.bias = torch.where(failed, self.safe_bias, self.bias)
        self.ahead_weight = torch.where(failed, self.safe_weight, self.ahead_weight)
        self.ahead_bias = torch.where(failed, self.safe_bias, self.ahead_bias)
        self.safe_weight, self.safe_bias = self.weight, self.bias

    def keep(self, some: Tensor) -> None:
        """Go on with some of the fits (bool (m,))."""
        for name in (
            *("weights", "penalty", "part", "momentum", "weight", "bias"),
            *("ahead_weight", "ahead_bias", "safe_weight", "safe_bias"),
        ):
            setattr(self, name, getattr(self, name)[:, some])


def _inner(left: Tensor, right: Tensor, metric: Tensor | float) -> Tensor:
    """Inner products (1, m, 1) of the fits."""
    return (metric * left * right).sum((0, 2), keepdim=True)


@dataclass(frozen=True)
class Solutions:
    """Solved fits: `weight` (r, m, c) in the shared axes and `bias` (1, m, c)."""

    shared: SharedPoints
    fits: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, fit: int, rows: Tensor) -> Tensor:
        """Logits (k, c) of one of the m fits on some points, int64 (k,)."""
        return self.shared.rotated[rows] @ self.weight[:, fit] + self.bias[:, fit]

    def heads(self) -> LinearHeads:
        """The heads on the points as they were given."""
        centre = self.shared.centres[self.fits]
        scale = self.shared.scales[self.fits]
        bias = self.bias[0] + torch.einsum("mr,rmc->mc", centre, self.weight)
        weight = torch.einsum("dr,rmc->mcd", self.shared.axes, self.weight) * scale[:, None, None]
        return LinearHeads(weight, bias, self.shared.middle + centre @ self.shared.axes.T, scale)


def _weighted_axes(centred: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal axes (d, r) that span the points and the weighted sum of squares (r,) along each; r <= min(n, d)."""
    scaled = centred.double() * weights.double().sqrt()[:, None]
    _, lengths, axes = torch.linalg.svd(scaled, full_matrices=False)
    spanned = lengths > 1e-7 * lengths[0].clamp(min=1e-30)
    spanned[0] = True
    return axes[spanned].T.to(centred.dtype), lengths[spanned].square().to(centred.dtype)
