"""Page of a pretrain run."""

from __future__ import annotations

from mlflow.entities import Run

from pipelines.reports.origin import cost_section, origin_section, title_of
from pipelines.reports.page import Page
from pipelines.reports.sections import pretraining_section
from pipelines.reports.words import say_interval
from tl_core.scoring.images import wilson_of_share


def report(run: Run) -> Page:
    """Say how good a pretrained network is on test images of its source."""
    accuracy = wilson_of_share(run.data.metrics["test/accuracy"], int(run.data.metrics["n_test"]))
    return Page(
        title_of(run),
        f"{say_interval(accuracy)} of {accuracy.n:,} test images of the source are named rightly",
        ["How well its features carry to other classes is what finetune runs measure."],
        [pretraining_section(run), cost_section(run), origin_section(run)],
    )
