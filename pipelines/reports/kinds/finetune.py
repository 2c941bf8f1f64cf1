"""Page of a finetune run."""

from __future__ import annotations

from dataclasses import fields

import mlflow
from mlflow.entities import Run

from pipelines.reports.origin import cost_section, origin_section, title_of
from pipelines.reports.page import Page, Section, Table
from pipelines.reports.predictions import answers_sections, features_section, hardest_section
from pipelines.reports.sections import distribution_section, other_images, say_verdict, task_of
from pipelines.reports.words import say_estimate, say_seconds, sentence
from pipelines.results.scores import accuracy_of, episodes_of
from pipelines.store.params import used_params
from tl_core.recipes.finetune import FinetuneRecipe


def report(run: Run) -> Page:
    """Say how good classifiers of a few images are, over episodes."""
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
            *hardest_section(run),
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
