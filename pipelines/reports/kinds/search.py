"""Page of a search."""

from __future__ import annotations

from mlflow.entities import Run

from pipelines.reports.origin import cost_section, origin_section, title_of
from pipelines.reports.page import Page
from pipelines.reports.sections import say_search, search_section


def report(run: Run) -> Page:
    """Say whether a search has found a better recipe."""
    section = search_section(run)
    return Page(
        title_of(run),
        say_search(run),
        ["These episodes chose the recipe, so they are no report: a finetune run on the other half of the images is."],
        [section, cost_section(run), origin_section(run)],
    )
