"""The pictures that runs carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tl_core.scoring.classification import Reliability, confusion_matrix, shares_of_pairs
from tl_core.scoring.episodes import Estimate
from tl_core.scoring.images import Interval

if TYPE_CHECKING:
    from tl_core.training.lr_finder import LrCurve

mpl.use("agg")
mpl.rcParams["text.parse_math"] = False  # a class may be called "$x"

_BLUE, _ORANGE = "#0072b2", "#d55e00"  # Okabe and Ito: distinct for colour-blind readers
_GREEN = "#009e73"
_COLOURS = (_BLUE, _ORANGE, _GREEN, "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MAX_ANNOTATED, _MAX_CLASSES = 20, 100


def draw_confusion(confusions: NDArray[np.int64], class_names: Sequence[str], of: str = "all episodes") -> Figure:
    """Confusion matrix in shares of each true class, true classes in rows; of many classes, the hardest ones.

    Args:
        confusions: from `count_confusions`.
    """
    classes = _hardest_classes(confusions, len(class_names))
    shares = confusion_matrix(confusions, classes)
    if len(classes) < len(class_names):
        of = f"{of}; the {len(classes)} hardest of {len(class_names):,} classes"
        class_names = [class_names[label] for label in classes]
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


def _hardest_classes(confusions: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Classes with the least recall, as many as a figure can name, sorted."""
    hits = confusions[:, 0] == confusions[:, 1]
    recalls = np.ones(n_classes)  # of a class that was not asked
    recalls[confusions[:, 0]] = 0
    recalls[confusions[hits, 0]] = shares_of_pairs(confusions)[hits]
    return np.sort(np.argsort(recalls, kind="stable")[:_MAX_CLASSES])


def draw_distribution(accuracies: Sequence[float] | NDArray[np.float64], result: Estimate) -> Figure:
    """Histogram of the episodes' accuracies with the mean and its interval."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    percent = 100 * np.asarray(accuracies)
    axes.hist(percent, bins=_edges(percent), color=_BLUE, alpha=0.7)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.axvline(100 * result.mean, color=_ORANGE, label=f"mean {result.percent()}")
    if np.isfinite(result.ci95):
        axes.axvspan(100 * result.low, 100 * result.high, color=_ORANGE, alpha=0.2, label="95 % interval of the mean")
    axes.set(xlabel="accuracy of an episode in %", ylabel="episodes")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _edges(percent: NDArray[np.float64]) -> list[float]:
    """Edges of a histogram's bins, each as many of the accuracy's own steps wide: a step is one query image."""
    values = np.unique(np.round(percent, 6))
    step = float(np.diff(values).min()) if len(values) > 1 else 1.0
    n_steps = round(float(values[-1] - values[0]) / step) + 1
    width = -(-n_steps // min(30, max(5, len(percent) // 4)))
    return [float(values[0]) + step * (width * i - 0.5) for i in range(-(-n_steps // width) + 1)]


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


@dataclass(frozen=True)
class Curve:
    """One training, a value per epoch, or none where it was not asked; accuracies as shares, stages from 1 on."""

    name: str
    train_loss: Sequence[float]
    train_accuracy: Sequence[float]
    val_loss: Sequence[float]
    val_accuracy: Sequence[float]
    stage: Sequence[float] = ()


def draw_curves(curves: Sequence[Curve], panels: tuple[int, int] = (1, 2)) -> Figure:
    """Loss and accuracy by epoch of one or several trainings: training dashed, validation solid, a colour for each.

    Of a single one a dotted line is where its next stage begins.

    Args:
        panels: rows and columns of the two.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(*panels)
    for i, curve in enumerate(curves):
        colour = _colour(i)
        for axes, train, val, scale in (
            (left, curve.train_loss, curve.val_loss, 1),
            (right, curve.train_accuracy, curve.val_accuracy, 100),
        ):
            axes.plot(_epochs(train), scale * np.asarray(train), color=colour, linestyle="--", alpha=0.6)
            axes.plot(_epochs(val), scale * np.asarray(val), color=colour, marker=".")
    left.set(xlabel="epoch", ylabel="loss", title="Loss")
    right.set(xlabel="epoch", ylabel="accuracy in %", title="Accuracy")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(curves) == 1:
            for first in np.flatnonzero(np.diff(curves[0].stage)):
                axes.axvline(first + 1.5, color="grey", linestyle=":", label="_next stage")
    figure.legend(handles=_keys_of_curves(curves), loc="outside upper center", ncols=2)
    return figure


def _keys_of_curves(curves: Sequence[Curve]) -> list[Line2D]:
    """Key of dashed and solid lines, and of the colours of several trainings."""
    keys = [Line2D([], [], color=_COLOURS[-1], linestyle="--", label="training")]
    if any(len(curve.val_loss) or len(curve.val_accuracy) for curve in curves):
        keys.append(Line2D([], [], color=_COLOURS[-1], label="validation"))
    if len(curves) == 1:
        return keys
    return [*keys, *(Line2D([], [], color=_colour(i), label=curve.name) for i, curve in enumerate(curves))]


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _epochs(values: Sequence[float]) -> range:
    return range(1, len(values) + 1)


def draw_intervals(results: Mapping[str, Interval], of: str = "accuracy", title: str = "On the same images") -> Figure:
    """Shares with their 95 % intervals, one row each."""
    values, lows, highs = 100 * np.array([(r.value, r.low, r.high) for r in results.values()]).T
    figure, axes = _rows_of_intervals(list(results), values, [values - lows, highs - values])
    axes.set(xlabel=f"{of} in %, with its 95 % interval", title=title)
    return figure


def draw_estimates(results: Mapping[str, Estimate]) -> Figure:
    """Means with their 95 % intervals, one row each."""
    means, half_widths = 100 * np.array([(r.mean, r.ci95) for r in results.values()]).T
    figure, axes = _rows_of_intervals(list(results), means, [half_widths, half_widths])
    axes.set(xlabel="accuracy in %, mean and 95 % interval", title="On the same episodes")
    return figure


def _rows_of_intervals(
    names: Sequence[str], values: NDArray[np.float64], errors: Sequence[NDArray[np.float64]]
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(values, range(len(names)), xerr=np.abs(errors), fmt="o", color=_BLUE, capsize=4)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return figure, axes


def draw_reliability(found: Reliability) -> Figure:
    """Accuracy over confidence; a dot's area is the number of answers."""
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color=_ORANGE, linestyle="--", label="confidence is accuracy")
    areas = 20 + 200 * found.counts / found.counts.max()
    axes.plot(100 * found.confidence, 100 * found.accuracy, color=_BLUE, alpha=0.5)
    axes.scatter(100 * found.confidence, 100 * found.accuracy, s=areas, color=_BLUE, label="answers, by confidence")
    axes.set(xlabel="confidence in %", ylabel="of these, right in %", title="Reliability", xlim=(0, 103), ylim=(0, 105))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def draw_shots(curve: Mapping[int, Estimate]) -> Figure:
    """Accuracy with its interval by number of labelled images per class."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    means, half_widths = 100 * np.array([(found.mean, found.ci95) for found in curve.values()]).T
    axes.errorbar(list(curve), means, yerr=half_widths, fmt="o-", color=_BLUE, capsize=4)
    axes.set_xscale("log")
    axes.set_xticks(list(curve), map(str, curve))
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled images per class", ylabel="accuracy in %", title="What more images bring")
    return figure


def draw_learning_curve(points: Sequence[tuple[float, Interval]]) -> Figure:
    """Accuracy with its interval by number of labelled images."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    numbers, values = [n for n, _ in points], 100 * np.array([found.value for _, found in points])
    lows, highs = (100 * np.array([getattr(found, end) for _, found in points]) for end in ("low", "high"))
    axes.errorbar(numbers, values, yerr=(values - lows, highs - values), fmt="o-", color=_BLUE, capsize=4)
    axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{n:.0f}" for n in numbers])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled images", ylabel="accuracy in %", title="What more images bring")
    return figure


@dataclass(frozen=True)
class Map:
    """Images at their places: (n, 2) in the unit square; `pictures` are uint8 (height, width, 3)."""

    title: str
    places: NDArray[np.float64]
    labels: Sequence[str]
    is_support: Sequence[bool]
    pictures: Sequence[NDArray[np.uint8]]


def draw_maps(maps: Sequence[Map]) -> Figure:
    """Maps of the same images, one below the other; the frame of an image has the colour of its class."""
    figure = Figure(figsize=(7, 6 * len(maps)), layout="constrained")
    names = sorted(set(maps[0].labels))
    colours = dict(zip(names, _COLOURS, strict=False))
    for axes, drawn in zip(figure.subplots(len(maps), squeeze=False).ravel(), maps, strict=True):
        for (x, y), label, support, picture in zip(
            drawn.places, drawn.labels, drawn.is_support, drawn.pictures, strict=True
        ):
            half = 0.035 if support else 0.022
            corner, side = (x - half, y - half), 2 * half
            axes.imshow(picture, extent=(x - half, x + half, y - half, y + half), zorder=2 + support)
            frame = Rectangle(corner, side, side, fill=False, edgecolor=colours[label], linewidth=2, zorder=2 + support)
            axes.add_patch(frame)
        axes.set(
            xlim=(-0.06, 1.06), ylim=(-0.06, float(drawn.places[:, 1].max()) + 0.06), title=drawn.title, aspect="equal"
        )
        axes.set_xticks([])
        axes.set_yticks([])
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=colours[name], linewidth=2, label=name) for name in names]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def draw_trials(
    numbers: Sequence[int], accuracies: Sequence[float], stopped: Sequence[bool], winner: int | None = None
) -> Figure:
    """Accuracy of each trial of a search; one that was stopped early was asked fewer episodes.

    Args:
        winner: position of the trial whose recipe the search ended with.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    x, y, early = np.asarray(numbers), 100 * np.asarray(accuracies), np.asarray(stopped, dtype=bool)
    axes.scatter(x[~early], y[~early], color=_BLUE, label="all episodes")
    axes.scatter(x[early], y[early], color=_ORANGE, marker="x", label="stopped early")
    if winner is not None:
        axes.scatter(x[[winner]], y[[winner]], s=160, facecolor="none", edgecolor=_GREEN, linewidth=2.5, label="winner")
    axes.set(xlabel="trial (0 is the default recipe)", ylabel="mean accuracy in %", title="Trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=2)
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
