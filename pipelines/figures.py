"""The pictures that runs carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tl_core.image_scores import Interval
from tl_core.lr_finder import LrCurve
from tl_core.pretrain import PretrainEpoch
from tl_core.scoring import Estimate

mpl.use("agg")

_BLUE, _ORANGE = "#0072b2", "#d55e00"  # Okabe and Ito: distinct for colour-blind readers
_COLOURS = (_BLUE, _ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MAX_ANNOTATED = 20


def draw_confusion(counts: NDArray[np.int64], class_names: Sequence[str], of: str = "all episodes") -> Figure:
    """Confusion matrix in shares of each true class; counts is (n_classes, n_classes), true classes in rows."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    n = len(class_names)
    side = 3.5 + 0.42 * min(n, 40)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(n), class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), class_names)
    axes.set(xlabel="predicted class", ylabel="true class", title=f"Share of each true class, {of}")
    if n <= _MAX_ANNOTATED:
        for row, column in np.ndindex(shares.shape):
            share = shares[row, column]
            if share >= 0.005:
                colour = "white" if share > 0.5 else "black"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=9)
    figure.colorbar(picture, ax=axes, shrink=0.7, format=lambda share, _: f"{100 * share:.0f} %")
    return figure


def draw_distribution(accuracies: Sequence[float], result: Estimate) -> Figure:
    """Histogram of the episodes' accuracies with the mean and its interval."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    percent = 100 * np.asarray(accuracies)
    axes.hist(percent, bins=min(30, max(5, len(percent) // 4)), color=_BLUE, alpha=0.7)
    axes.axvline(100 * result.mean, color=_ORANGE, label=f"mean {result.percent()}")
    if np.isfinite(result.ci95):
        axes.axvspan(100 * result.low, 100 * result.high, color=_ORANGE, alpha=0.2, label="95 % interval of the mean")
    axes.set(xlabel="accuracy of an episode in %", ylabel="episodes", title="Accuracy over episodes")
    axes.legend()
    return figure


def draw_episodes_spent(spent: Mapping[int, int], n_episodes: int) -> Figure:
    """Episodes that each trial was given before it ended or was stopped, by its number."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(list(spent), list(spent.values()), color=_BLUE)
    axes.axhline(n_episodes, color=_ORANGE, linestyle="--", label="without stopping any")
    share = sum(spent.values()) / max(1, n_episodes * len(spent))
    axes.set(xlabel="trial", ylabel="episodes", title=f"Episodes spent: {100 * share:.0f} % of those without stopping")
    axes.legend()
    return figure


def draw_training_curves(history: Sequence[PretrainEpoch]) -> Figure:
    """Loss and accuracies by epoch."""
    losses = [epoch.training.loss for epoch in history]
    train = [epoch.training.accuracy for epoch in history]
    val = [epoch.val_accuracy for epoch in history]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(losses) + 1)
    left.plot(epochs, losses, color=_BLUE, marker=".")
    left.set(xlabel="epoch", ylabel="training loss", title="Loss (label smoothing included)")
    right.plot(epochs, 100 * np.asarray(train), color=_BLUE, marker=".", label="training (augmented views)")
    right.plot(epochs, 100 * np.asarray(val), color=_ORANGE, marker=".", label="validation")
    right.set(xlabel="epoch", ylabel="accuracy in %", title="Accuracy")
    right.legend()
    return figure


@dataclass(frozen=True)
class Curve:
    """One training, a value per epoch; accuracies as shares."""

    name: str
    train_loss: Sequence[float]
    train_accuracy: Sequence[float]
    val_loss: Sequence[float]
    val_accuracy: Sequence[float]


def draw_curves(curves: Sequence[Curve]) -> Figure:
    """Loss and accuracy by epoch of one or several trainings: training dashed, validation solid, a colour for each."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, curve in enumerate(curves):
        colour = _COLOURS[i % len(_COLOURS)]
        for axes, train, val, scale in (
            (left, curve.train_loss, curve.val_loss, 1),
            (right, curve.train_accuracy, curve.val_accuracy, 100),
        ):
            epochs = range(1, len(train) + 1)
            axes.plot(epochs, scale * np.asarray(train), color=colour, linestyle="--", alpha=0.6)
            axes.plot(epochs, scale * np.asarray(val), color=colour, marker=".", label=curve.name or "validation")
    left.set(xlabel="epoch", ylabel="loss", title="Loss: training dashed, validation solid")
    right.set(xlabel="epoch", ylabel="accuracy in %", title="Accuracy: training dashed, validation solid")
    right.legend()
    return figure


def draw_intervals(results: Mapping[str, Interval]) -> Figure:
    """Accuracies with their 95 % intervals, one row each."""
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    values, lows, highs = 100 * np.array([(r.value, r.low, r.high) for r in results.values()]).T
    axes.errorbar(values, range(len(results)), xerr=[values - lows, highs - values], fmt="o", color=_BLUE, capsize=4)
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
    axes.set(xlabel="accuracy in %, with its 95 % interval", title="On the same images")
    return figure


def draw_estimates(results: Mapping[str, Estimate]) -> Figure:
    """Means with their 95 % intervals, one row each."""
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    means = [100 * result.mean for result in results.values()]
    rows = range(len(results))
    axes.errorbar(means, rows, xerr=[100 * result.ci95 for result in results.values()], fmt="o", color=_BLUE, capsize=4)
    axes.set_yticks(rows, list(results))
    axes.invert_yaxis()
    axes.set(xlabel="accuracy in %, mean and 95 % interval", title="On the same episodes")
    return figure


def draw_lr_curve(curve: LrCurve) -> Figure:
    """Smoothed loss over the learning rate, with the suggestion."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(curve.rates, curve.losses, color=_BLUE)
    axes.axvline(curve.suggestion, color=_ORANGE, label=f"suggestion {curve.suggestion:.2e}")
    axes.set(xlabel="learning rate", ylabel="smoothed loss", title="Learning-rate range test")
    axes.legend()
    return figure
