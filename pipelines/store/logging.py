"""Curves, figures and data sets of a run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run

from pipelines.store.redaction import redact
from tl_core.data.dataset import ImageDataset
from tl_core.scoring.images import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing
    from plotly.graph_objects import Figure as Plot

DRAWING_ERRORS = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""Errors of those who draw and write pages."""

ACCURACY_METRICS = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_ci95")
"""Metrics of every run that says how good something is: the first with its interval over images, and over episodes."""

_DIGEST_LENGTH, _PROFILE_LENGTH, _TAG_LENGTH, _BATCH_LENGTH = 36, 16_777_215, 5000, 1000  # what the store takes


def interval_metrics(name: str, found: Interval) -> dict[str, float]:
    """Return the metrics of a share with its interval: NAME, NAME_low and NAME_high."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


@contextmanager
def beside_the_numbers(what: str) -> Iterator[None]:
    """Context of what only shows the numbers of a run: where it cannot be made, a warning says so and they stand."""
    try:
        yield
    except DRAWING_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"warning: the run has no {what} ({reason}); its numbers are complete", file=sys.stderr)


def log_drawing(draw: Callable[[], Drawing | Plot], name: str) -> None:
    """Draw a figure and keep it with the active run under a name; one that cannot be drawn decides nothing."""
    with beside_the_numbers(name):
        mlflow.log_figure(draw(), name)


def log_plots(plots: Mapping[str, Callable[[], Plot]], name: str) -> None:
    """Keep plots as one page with the active run, each below its title; the page brings its script and asks no network.

    A plot that cannot be drawn is left out with a warning.
    """
    parts: list[str] = []
    for title, draw in plots.items():
        with beside_the_numbers(f"{title} in {name}"):
            script = not parts  # once for all of them: it is 5 MB
            parts.append(str(draw().update_layout(title=title).to_html(full_html=False, include_plotlyjs=script)))
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Plots</title>'
    mlflow.log_text(f"{head}{''.join(parts)}", name)


def log_series(series: Mapping[str, Sequence[float]]) -> None:
    """Log whole curves of the active run, with the position as step, in as few calls as the store takes."""
    run = mlflow.active_run()
    assert run is not None
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, values in series.items() for step, value in enumerate(values)]
    for start in range(0, len(metrics), _BATCH_LENGTH):
        mlflow.MlflowClient().log_batch(run.info.run_id, metrics=metrics[start : start + _BATCH_LENGTH])


def log_model_metrics(model_id: str, metrics: Mapping[str, float], scored_on: Dataset | None) -> None:
    """Log metrics of a model that MLflow keeps with the active run, and the data that they were measured on."""
    run = mlflow.active_run()
    assert run is not None
    now = int(time.time() * 1000)
    data = {"dataset_name": scored_on.name, "dataset_digest": scored_on.digest} if scored_on else {}
    values = [
        Metric(name, value, now, 0, model_id=model_id, run_id=run.info.run_id, **data)
        for name, value in metrics.items()
    ]
    mlflow.MlflowClient().log_batch(run.info.run_id, metrics=values)


def dataset_of(run: Run) -> Dataset | None:
    """Return the data that a run has recorded as its input, the first if there are several."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return inputs[0].dataset if inputs else None


def log_dataset(dataset: ImageDataset, context: str) -> None:
    """Record the data as an input of the active run, and as tags its fingerprint, and what was left out or repaired."""
    run = mlflow.active_run()
    assert run is not None
    entity = Dataset(
        name=redact(" + ".join(Path(part.strip()).name for part in dataset.name.split(","))),
        digest=dataset.fingerprint[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"spec": dataset.name}),
        profile=json.dumps({"n_images": len(dataset.labels), "class_counts": dataset.class_counts()})[:_PROFILE_LENGTH],
    )
    tags = [InputTag("mlflow.data.context", context)]
    mlflow.MlflowClient().log_inputs(run.info.run_id, [DatasetInput(entity, tags)])
    mlflow.set_tag(f"{context}_fingerprint", dataset.fingerprint)
    if dataset.notices:
        mlflow.set_tag(f"{context}_notices", "; ".join(dataset.notices)[:_TAG_LENGTH])
