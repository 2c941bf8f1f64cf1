"""Page of a train run."""

from __future__ import annotations

from mlflow.entities import Run

from pipelines.reports.origin import cost_section, origin_section, title_of
from pipelines.reports.page import Page
from pipelines.reports.predictions import answers_sections
from pipelines.reports.sections import curves_section
from pipelines.reports.words import say_interval
from pipelines.results.trainings import curve_of, load_training
from tl_core.scoring.images import wilson


def report(run: Run) -> Page:
    """Say how good a trained network is, over its test images."""
    training = load_training(run)
    accuracy = wilson(training.hits)
    return Page(
        title_of(run),
        f"{say_interval(accuracy)} of {accuracy.n:,} test images are named rightly",
        ["No test image has been trained on or has chosen anything. The interval is over the test images."],
        [
            curves_section("Learning", [curve_of(training)], [_say_chosen(run)]),
            *answers_sections(run),
            cost_section(run),
            origin_section(run),
        ],
    )


def _say_chosen(run: Run) -> str:
    """Say which stage a train run has kept."""
    metrics = run.data.metrics
    n_stages = sum(name.startswith("stage_") and name.endswith("/test_accuracy") for name in metrics)
    best = f"{100 * metrics['val/best_accuracy']:.1f} % of {metrics['n_val']:,.0f} validation images"
    if n_stages == 1:
        return f"Validation chose the weights: {best}."
    return f"Validation chose the weights, those of stage {metrics['stage']:.0f} of {n_stages}: {best}."
