"""Figures show what they are given, and say which line is whose."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest

from pipelines.results.figures import Curve, draw_confusion, draw_curves, draw_distribution
from tl_core.scoring.classification import count_confusions
from tl_core.scoring.episodes import estimate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@dataclass(frozen=True)
class Shown:
    rate: float = 1e-3


def test_curves_of_several_trainings_are_in_one_figure_each_in_a_colour_of_its_own() -> None:
    frozen = Curve("frozen", [2.0, 1.0], [0.2, 0.4], [2.1, 1.5], [0.3, 0.35])
    tuned = Curve("all trainable", [2.0, 0.5, 0.1], [0.3, 0.8, 0.9], [1.9, 1.0, 0.9], [0.4, 0.6, 0.7])
    figure = draw_curves([frozen, tuned])
    loss, accuracy = figure.axes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation", "frozen", "all trainable"]
    drawn = [list(line.get_ydata()) for line in loss.lines]
    assert drawn == [[2.0, 1.0], [2.1, 1.5], [2.0, 0.5, 0.1], [1.9, 1.0, 0.9]]
    assert [list(line.get_xdata()) for line in loss.lines][2] == [1, 2, 3]
    assert list(accuracy.lines[3].get_ydata()) == [40.0, 60.0, 70.0]
    colours = [line.get_color() for line in loss.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_a_second_stage_begins_where_its_first_epoch_is() -> None:
    curve = Curve("one", [3.0, 2.0, 1.0], [0.1, 0.2, 0.3], [3.0, 2.0, 1.0], [0.1, 0.2, 0.3], [1, 1, 2])
    for axes in draw_curves([curve]).axes:
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [2.5]  # type: ignore[index]
    assert not [line for line in draw_curves([curve, curve]).axes[0].lines if line.get_linestyle() == ":"]


@pytest.mark.parametrize(("validated", "keys"), [([0.4], ["training", "validation"]), ([], ["training"])])
def test_a_legend_promises_only_what_is_drawn(validated: list[float], keys: list[str]) -> None:
    (legend,) = draw_curves([Curve("", [1.0], [0.5], [], validated)]).legends
    assert [text.get_text() for text in legend.get_texts()] == keys


@pytest.mark.parametrize(("n_query", "n_episodes"), [(10, 40), (75, 600), (10, 4), (1, 30)])
def test_every_bar_of_a_distribution_stands_for_the_same_number_of_possible_accuracies(
    n_query: int, n_episodes: int
) -> None:
    accuracies = np.random.default_rng(0).integers(0, n_query + 1, n_episodes) / n_query
    bars = draw_distribution(accuracies, estimate(accuracies)).axes[0].patches[:-1]  # the last is the interval
    edges = np.array([(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars])  # type: ignore[attr-defined]
    assert sum(bar.get_height() for bar in bars) == n_episodes  # type: ignore[attr-defined]
    possible = 100 * np.arange(n_query + 1) / n_query
    inside = [int(((possible > low) & (possible < high)).sum()) for low, high in edges]
    assert len(set(inside[:-1])) <= 1  # the last bin may reach beyond what is possible


@pytest.mark.parametrize(
    "name", [r"$\frac{x$", "$x$ $", "a_b^c", "<b>&amp;", "=1+1", "line\nbreak", "\\", "%d {0}", "ä", ""]
)
def test_a_class_of_any_name_can_be_drawn(name: str) -> None:
    figure = draw_confusion(np.array([[0, 0, 3], [0, 1, 1], [1, 1, 4]]), [name, "other"])
    figure.savefig(io.BytesIO(), format="png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [name, "other"]


def test_of_ten_thousand_classes_the_hardest_are_drawn() -> None:
    labels = np.repeat(np.arange(10_000), 2)
    predictions = np.where(labels % 200 == 7, 5, labels)  # 50 classes are always taken for class 5
    figure = draw_confusion(count_confusions(labels, predictions), [f"class {label}" for label in range(10_000)])
    drawn = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(drawn) == 100
    assert [name for name in drawn if int(name[6:]) % 200 == 7] == [f"class {label}" for label in range(7, 10_000, 200)]
    assert figure.axes[0].get_title() == "Share of each true class, all episodes; the 100 hardest of 10,000 classes"
    shares = figure.axes[0].images[0].get_array()
    assert shares is not None
    assert shares[drawn.index("class 7"), drawn.index("class 5")] == 1


def test_a_figure_that_cannot_be_drawn_leaves_the_run_finished(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.store.find import find_run
    from pipelines.store.logging import log_drawing
    from pipelines.store.runs import tracked_run

    with tracked_run("finetune", Shown()) as run_id:
        log_drawing(lambda: draw_distribution([float("nan")], estimate([0.5])), "distribution.png")
    assert find_run(run_id, "finetune").info.status == "FINISHED"
    assert "warning: the run has no distribution.png (" in capsys.readouterr().err
