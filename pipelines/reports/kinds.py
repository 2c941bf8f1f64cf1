"""The report of a run: the answer in plain words, then what it rests on, for every kind of run that has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import mlflow
from mlflow.entities import Run

from pipelines.reports.comparisons import report_comparison
from pipelines.reports.data_set import report_data_set
from pipelines.reports.delivered import report_delivered
from pipelines.reports.line import report_main
from pipelines.reports.new_images import report_new_images
from pipelines.reports.origin import cost_section, origin_section, title_of
from pipelines.reports.page import Page, Section, Table
from pipelines.reports.predictions import answers_sections, features_section
from pipelines.reports.sections import (
    curves_section,
    distribution_section,
    other_images,
    pretraining_section,
    say_search,
    say_verdict,
    search_section,
    task_of,
)
from pipelines.reports.words import say_estimate, say_interval, say_seconds, sentence
from pipelines.results.scores import accuracy_of, episodes_of
from pipelines.results.trainings import curve_of, load_training
from pipelines.store.params import used_params
from pipelines.store.runs import KIND
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.images import wilson, wilson_of_share


def build_report(run: Run) -> Page:
    """The report of a run, from its records.

    Raises:
        InputError: the run lacks records that a report needs.
    """
    return _REPORTS[run.data.tags[KIND]](run)


def _finetune(run: Run) -> Page:
    accuracy = accuracy_of(run.info.run_id)
    gain = _say_gain(run)
    seconds = float(episodes_of(run.info.run_id)["seconds"].mean())
    return Page(
        title_of(run),
        sentence(say_estimate(accuracy), gain),
        [task_of(run), other_images(run), *_say_fallbacks(run)],
        [
            distribution_section(run),
            *answers_sections(run),
            features_section(run),
            cost_section(run, ("fine-tuning and scoring of one episode", say_seconds(seconds))),
            origin_section(run),
            _recipe_section(run),
        ],
    )


def _say_fallbacks(run: Run) -> list[str]:
    """Say in how many episodes fine-tuning was taken back."""
    n_fell_back = int(run.data.metrics.get("n_fell_back", 0))
    if not n_fell_back:
        return []
    return [
        f"In {n_fell_back:,} of {run.data.metrics['n_episodes']:,.0f} episodes fine-tuning made the loss on its own "
        "images grow and was taken back: the head of the start was scored. A lower max_lr may help."
    ]


def _say_gain(run: Run) -> str:
    """Say how good the recipe of a finetune run was in its search, if there was one."""
    search = used_params(run).get("search_run", "")
    if not search:
        return ""
    return f"in the search for its recipe: {say_verdict(mlflow.MlflowClient().get_run(search))}"


def _recipe_section(run: Run) -> Section:
    params = used_params(run)
    rows = [[field.name, params[field.name]] for field in fields(FinetuneRecipe) if field.name in params]
    return Section("Recipe", [], [Table("Settings of the fine-tuning", [], rows, folded=True)])


def _search(run: Run) -> Page:
    section = search_section(run)
    return Page(
        title_of(run),
        say_search(run),
        ["These episodes chose the recipe, so they are no report: a finetune run on the other half of the images is."],
        [section, cost_section(run), origin_section(run)],
    )


def _train(run: Run) -> Page:
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


def _pretrain(run: Run) -> Page:
    accuracy = wilson_of_share(run.data.metrics["test/accuracy"], int(run.data.metrics["n_test"]))
    return Page(
        title_of(run),
        f"{say_interval(accuracy)} of {accuracy.n:,} test images of the source are named rightly",
        ["How well its features carry to other classes is what finetune runs measure."],
        [pretraining_section(run), cost_section(run), origin_section(run)],
    )


_REPORTS: dict[str, Callable[[Run], Page]] = {
    "main": report_main,
    "classify": report_delivered,
    "finetune": _finetune,
    "search": _search,
    "compare": report_comparison,
    "train": _train,
    "score": report_new_images,
    "pretrain": _pretrain,
    "prepare": report_data_set,
}
KINDS = tuple(_REPORTS)
"""Kinds of runs that have a report."""
