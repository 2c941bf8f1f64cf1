"""Sections on episodes, trainings and searches, read from the records of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run

from pipelines.inputs.artifacts import RECIPE_ARTIFACT, REPORTED_VERDICT, VERDICT
from pipelines.reports.charts import chart_style, make_chart
from pipelines.reports.page import Section, Table
from pipelines.reports.words import say_estimate
from pipelines.results.figures import Curve, draw_curves, draw_distribution, draw_shots, draw_trials
from pipelines.results.scores import episodes_of
from pipelines.results.shots import say_trend
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.params import used_params
from tl_core.scoring.episodes import Estimate, estimate

_MOST_TRIALS = 1000
_QUANTILES = {
    "lowest": 0.0,
    "5 %": 0.05,
    "quarter": 0.25,
    "median": 0.5,
    "three quarters": 0.75,
    "95 %": 0.95,
    "highest": 1.0,
}


def distribution_section(run: Run) -> Section:
    """Section on the spread of a finetune run's accuracies over episodes."""
    values = episodes_of(run.info.run_id)["accuracy"].to_numpy()
    found = estimate(values)
    with chart_style():
        figure = draw_distribution(values, found)
        text = f"Histogram of the accuracies of {found.n:,} episodes; the line is their mean, the band its interval."
        chart = make_chart(figure, "distribution", text, height=3)
    quantiles = [[name, f"{100 * np.quantile(values, at):.1f}"] for name, at in _QUANTILES.items()]
    lowest, low, high = quantiles[0][1], quantiles[2][1], quantiles[4][1]
    sentences = [
        f"Half of the episodes are between {low} and {high} %, the worst is at {lowest} %. "
        "One episode is what you get if you label so few images once."
    ]
    table = Table("Accuracy of the episodes in %", ["position", "%"], quantiles, folded=True)
    return Section("Episodes", sentences, [chart, table])


def curves_section(title: str, curves: Sequence[Curve], sentences: Sequence[str]) -> Section:
    """Loss and accuracy by epoch of one or several trainings."""
    with chart_style():
        text = "Loss and accuracy by epoch: training dashed, validation solid."
        if len(curves) == 1 and len(set(curves[0].stage)) > 1:
            text += " A dotted line is where the next stage begins."
        chart = make_chart(draw_curves(curves, panels=(2, 1)), "curves", text, height=5)
    rows = [
        [
            f"{curve.name} {epoch}".strip(),
            f"{curve.train_loss[epoch - 1]:.3f}",
            *(f"{100 * of[epoch - 1]:.1f} %" for of in (curve.train_accuracy, curve.val_accuracy)),
        ]
        for curve in curves
        for epoch in range(1, len(curve.train_loss) + 1)
    ]
    table = Table("Values by epoch", ["epoch", "training loss", "training", "validation"], rows, folded=True)
    return Section(title, sentences, [chart, table])


def shots_section(curve: Mapping[int, Estimate]) -> Section:
    """Section on the learning curve: accuracy by number of labelled images."""
    with chart_style():
        text = "Accuracy by number of labelled images per class, with its interval."
        chart = make_chart(draw_shots(curve), "shots", text, height=3)
    rows = [[f"{n_shot}", say_estimate(found)] for n_shot, found in curve.items()]
    table = Table("Accuracy by number of labelled images per class", ["images per class", "accuracy"], rows)
    return Section("More images", [say_trend(curve)], [chart, table])


def search_section(run: Run) -> Section:
    """Section on a search: its trials, its result and its gain."""
    metrics = run.data.metrics
    client = mlflow.MlflowClient()
    children = client.search_runs(
        [run.info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and tags.kind = 'trial'",
        max_results=_MOST_TRIALS,
    )
    scored = sorted(
        (trial for trial in children if "accuracy" in trial.data.metrics), key=lambda t: str(t.info.run_name)
    )
    recipe = found_recipe(run)
    with chart_style():
        figure = draw_trials(
            [int(str(trial.info.run_name).removeprefix("trial-")) for trial in scored],
            [trial.data.metrics["accuracy"] for trial in scored],
            [trial.data.tags["state"] != "complete" for trial in scored],
            next((at for at, trial in enumerate(scored) if _is_recipe(trial.data.params, recipe)), None),
        )
        chart = make_chart(figure, "trials", "Mean accuracy of every trial on its episodes.", height=3)
    finalists = pd.read_csv(fetch_artifact(run.info.run_id, "finalists.csv"))
    sentences = [
        f"{metrics['n_trials']:.0f} trials{_elsewhere(metrics)} took {metrics['episodes_spent']:,.0f} episodes, all "
        "from the half of the images that no score is reported on.",
        f"Result: {say_found(run)}; {say_verdict(run)}.",
    ]
    if "optimism" in metrics:
        optimism = round(100 * metrics["optimism"], 1)
        if optimism:
            looked = f"{abs(optimism):.1f} points {'better' if optimism > 0 else 'worse'} in the search than"
        else:
            looked = "as good in the search as"
        sentences.append(f"The best one looked {looked} on fresh episodes.")
    if REPORTED_VERDICT in run.data.tags:
        sentences.append(f"On the half that nothing was chosen on, it is {run.data.tags[REPORTED_VERDICT]}.")
    return Section("Search", sentences, [chart, _finalists_table(finalists, recipe)])


def found_recipe(run: Run) -> dict[str, Any]:
    """Read the recipe that a search ended with."""
    recipe: dict[str, Any] = json.loads(fetch_artifact(run.info.run_id, RECIPE_ARTIFACT).read_text())
    return recipe


def say_search(run: Run) -> str:
    """Say what a search found, how good it is, and whether that is better than what it started from."""
    metrics = run.data.metrics
    accuracy = f"{100 * metrics['accuracy']:.1f} %"
    if "accuracy_ci95" in metrics:
        accuracy += f" ± {100 * metrics['accuracy_ci95']:.1f}"
    return f"{say_found(run)}: {accuracy} on fresh episodes; {say_verdict(run)}"


def say_found(run: Run) -> str:
    """Say the settings that a search ended with, of those that it searched: `max_lr 0.003, augment flip`."""
    recipe = found_recipe(run)
    searched = used_params(run).get("searched", "").split("+")
    return ", ".join(f"{name} {_say_setting(recipe[name])}" for name in searched if name in recipe)


def _say_setting(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_recipe(values: Mapping[Any, Any], recipe: Mapping[str, Any]) -> bool:
    """Return whether a row of settings, which may be text, is this recipe."""
    return all(name in values and _same(values[name], value) for name, value in recipe.items())


def _same(one: Any, other: Any) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-9)
    except (TypeError, ValueError):
        return str(one) == str(other)


def _elsewhere(metrics: Mapping[str, float]) -> str:
    """Say how many trials of a study are nested in other runs."""
    n_elsewhere = metrics.get("n_trials_elsewhere", 0)
    return f" ({n_elsewhere:.0f} of them by other runs of this study)" if n_elsewhere > 0 else ""


def say_verdict(run: Run) -> str:
    """Say who won a search, as it said itself."""
    return run.data.tags[VERDICT]


def _finalists_table(finalists: pd.DataFrame, recipe: Mapping[str, Any]) -> Table:
    settings = [name for name in finalists if not str(name).endswith("accuracy")]
    alone = len(finalists) == 1
    varied = [name for name in settings if alone or finalists[name].nunique() > 1]
    rows = [
        [
            f"{number}, the winner" if _is_recipe(row, recipe) else f"{number}",
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * row['search_accuracy']:.1f} %",
            *(_say_setting(row[name]) for name in varied),
        ]
        for number, row in enumerate(finalists.to_dict("records"), start=1)
    ]
    columns = ["finalist", "on fresh episodes", "in the search", *map(str, varied)]
    title = "The only finalist, with its settings" if alone else "The finalists, with the settings in which they differ"
    return Table(title, columns, rows)


def task_of(run: Run) -> str:
    """Describe the task of a finetune run's episodes."""
    shape = json.loads(run.data.tags["episodes"])
    ways, shots, queries = shape["n_way"], shape["n_shot"], shape["n_query"]
    return (
        f"In an episode, the classifier learns {ways} classes from {shots} labelled {_plural('image', shots)} of each, "
        f"and is asked about {queries} {_plural('other', queries)} of each; "
        f"guessing is right {100 / ways:.0f} % of the time. "
        "The interval says how far the mean may move with other episodes of the same images."
    )


def other_images(run: Run) -> str:
    """Say how accurate a finetune run's classifiers are on other images of the same kind."""
    metrics = run.data.metrics
    prefix = "" if "accuracy_low" in metrics else "images/"  # of runs of earlier versions
    low, high = 100 * metrics[f"{prefix}accuracy_low"], 100 * metrics[f"{prefix}accuracy_high"]
    images = f"{metrics['n_images']:,.0f} images"
    return f"For other images of the same kind expect {low:.1f} to {high:.1f} %, going by the {images} there were."


def pretraining_section(run: Run) -> Section:
    """Loss and accuracy by epoch of a pretrain run."""
    curve = Curve(
        "",
        train_loss=_history(run, "train/loss"),
        train_accuracy=_history(run, "train/accuracy"),
        val_loss=[],
        val_accuracy=_history(run, "val/accuracy"),
    )
    return curves_section(
        "Pretraining", [curve], ["Training sees changed views of its images, validation sees them as they are."]
    )


def _history(run: Run, name: str) -> list[float]:
    points = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
    return [float(point.value) for point in sorted(points, key=lambda point: int(point.step))]


def _plural(word: str, n: int) -> str:
    return word if n == 1 else f"{word}s"
