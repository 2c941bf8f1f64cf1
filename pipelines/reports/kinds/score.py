"""The report of a score run: how good a finished classifier is on new labelled images."""

from __future__ import annotations

from mlflow.entities import Run

from pipelines.reports.origin import cost_section, origin_section, title_of
from pipelines.reports.page import Page
from pipelines.reports.predictions import answers_sections
from pipelines.reports.words import say_count, say_interval
from tl_core.scoring.images import Interval
from tl_core.scoring.unlike import REFUSED

_SURE = 0.05


def report(run: Run) -> Page:
    """Report a score run."""
    metrics = run.data.metrics
    n_images = int(metrics["n_images"])
    accuracy, balanced = (
        Interval(metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"], n_images)
        for name in ("accuracy", "balanced_accuracy")
    )
    model = run.data.tags.get("model_version") or run.data.params.get("model", "the file")
    sentences = [
        f"Every class weighing the same: {say_interval(balanced)}.",
        f"Scored was {model}. The intervals are over the images, which had no part in the making of the file.",
    ]
    return Page(
        title_of(run),
        f"{say_interval(accuracy)} of {n_images:,} new images are named rightly",
        [*sentences, *_say_learned(int(metrics.get("n_learned", 0))), *_say_drift(metrics)],
        [*answers_sections(run), cost_section(run), origin_section(run)],
    )


def _say_learned(n_learned: int) -> list[str]:
    return [f"Left out: {say_count(n_learned, 'image')} that the file was made from."] if n_learned else []


def _say_drift(metrics: dict[str, float]) -> list[str]:
    return [*_say_unlike(metrics), *_say_features(metrics)]


def _say_features(metrics: dict[str, float]) -> list[str]:
    """Say what the two-sample test found; it is asked of every class on its own."""
    if "drift_p_value" not in metrics:
        return []
    p_value = metrics["drift_p_value"]
    said = f"two-sample test of their features, p = {p_value:.3f}"
    if p_value >= _SURE:
        return [f"Class by class they are not significantly different from the images it was made from ({said})."]
    return [
        f"Class by class they are significantly different from the images it was made from ({said}): another camera, "
        "place or time may be the cause. What it costs is in the accuracy above."
    ]


def _say_unlike(metrics: dict[str, float]) -> list[str]:
    if "unlike_share" not in metrics:
        return []
    share = f"{100 * metrics['unlike_share']:.0f} % of the images look like none of the classes"
    expected = f"of images like those it was made from, {100 * REFUSED:.0f} % do"
    if metrics["unlike_p_value"] >= _SURE:
        return [f"{share}; {expected}."]
    return [f"{share}; {expected}: these images are of another kind, and the classifier should be made anew with some."]
