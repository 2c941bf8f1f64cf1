"""What more images would bring: the plan of a learning curve, and what its end says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.results.shots import plan_shots, say_trend
from tl_core.data.dataset import load_dataset
from tl_core.errors import InputError
from tl_core.recipes.episode import OPEN_SHAPE
from tl_core.scoring.episodes import Estimate


@pytest.mark.parametrize("shots", ["few", "1,,2", "0", "-1"])
def test_shots_are_numbers(colours: Path, shots: str) -> None:
    with pytest.raises(InputError, match="expected shots as auto, or numbers from 1 on separated by commas"):
        plan_shots(load_dataset(str(colours), 16), shots, OPEN_SHAPE, "auto")


def test_the_shots_of_a_learning_curve_leave_images_to_ask_about(colours: Path) -> None:
    dataset = load_dataset(str(colours), 16)  # 20 of each class, of which the report half has 10
    shapes = plan_shots(dataset, "auto", OPEN_SHAPE, "report")
    assert [(shape.n_way, shape.n_shot, shape.n_query) for shape in shapes] == [(3, 1, 2), (3, 2, 2), (3, 5, 2)]
    assert [shape.n_shot for shape in plan_shots(dataset, "8, 3", OPEN_SHAPE, "report")] == [3, 8]
    with pytest.raises(InputError, match="has 10 images in this part of the target, but n_shot"):
        plan_shots(dataset, "9", OPEN_SHAPE, "report")
    assert plan_shots(dataset, "", OPEN_SHAPE, "report") == []


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ((0.7, 0.03), (0.8, 0.04), "+10.0 ± 5.0 points: more images will help"),
        ((0.79, 0.03), (0.8, 0.04), "+1.0 ± 5.0 points, not significantly different from none"),
        ((0.79, 0.06), (0.8, 0.08), "+1.0 ± 10.0 points: with so few images and episodes nothing can be said"),
        ((0.8, 0.06), (0.5, 0.08), "-30.0 ± 10.0 points: more images do not help"),
    ],
)
def test_the_trend_of_a_learning_curve(before: tuple[float, float], after: tuple[float, float], says: str) -> None:
    curve = {1: Estimate(0.1, 0.1, 0.1, 9), 5: Estimate(*after, 0.1, 9), 2: Estimate(*before, 0.1, 9)}
    assert say_trend(curve).startswith("From 2 to 5 labelled images per class")
    assert says in say_trend(curve)
