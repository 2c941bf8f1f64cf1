"""Figures show what they are given, and say which line is whose."""

from __future__ import annotations

from pipelines.records.figures import Curve, draw_curves


def test_curves_of_several_trainings_are_in_one_figure_each_in_a_colour_of_its_own() -> None:
    frozen = Curve("frozen", [2.0, 1.0], [0.2, 0.4], [2.1, 1.5], [0.3, 0.35])
    tuned = Curve("all trainable", [2.0, 0.5, 0.1], [0.3, 0.8, 0.9], [1.9, 1.0, 0.9], [0.4, 0.6, 0.7])
    loss, accuracy = draw_curves([frozen, tuned]).axes
    legend = accuracy.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["frozen", "all trainable"]
    drawn = [list(line.get_ydata()) for line in loss.lines]
    assert drawn == [[2.0, 1.0], [2.1, 1.5], [2.0, 0.5, 0.1], [1.9, 1.0, 0.9]]
    assert [list(line.get_xdata()) for line in loss.lines][2] == [1, 2, 3]
    assert list(accuracy.lines[3].get_ydata()) == [40.0, 60.0, 70.0]
    colours = [line.get_color() for line in loss.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
