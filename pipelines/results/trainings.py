"""Train runs read back: which test images each got right, its curves, and one table of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from pipelines.inputs.names import short_weights
from pipelines.results.columns import aligned
from pipelines.results.comparable import find_comparable_runs, tell_apart
from pipelines.results.figures import Curve
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.params import used_params
from tl_core.scoring.images import Hits, Interval

PREDICTIONS_ARTIFACT = "predictions.parquet"
CURVES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "train/stage")
"""Metrics by epoch, in the order of a `Curve`'s fields."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished train run; `hits` has one value per test image, in the same order for the same test part."""

    name: str
    run: Run
    hits: Hits


def load_trainings(run_ids: Sequence[str]) -> list[TrainingResult]:
    """Read several train runs that were scored on the same test images.

    Raises:
        InputError: fewer than two runs, the same run twice, or runs with other test images.
    """
    advice = "give the same data, split, test_fraction and seed to both"
    runs = find_comparable_runs(run_ids, "train", "test_images", "test images", advice)
    names = [run.data.tags[MLFLOW_RUN_NAME].removeprefix("train ") for run in runs]
    return [
        TrainingResult(name, run, hits_in(predictions_of(run.info.run_id)))
        for name, run in zip(tell_apart(names, runs), runs, strict=True)
    ]


def load_training(run: Run) -> TrainingResult:
    """Read one train run."""
    return TrainingResult("", run, hits_in(predictions_of(run.info.run_id)))


def predictions_of(run_id: str) -> pd.DataFrame:
    """One row per test image: file, content_hash, label, prediction, probability."""
    return pd.read_parquet(fetch_artifact(run_id, PREDICTIONS_ARTIFACT))


def hits_in(predictions: pd.DataFrame) -> Hits:
    """Return which rows of a table of predictions are right: bool (n,)."""
    hits: Hits = (predictions["label"] == predictions["prediction"]).to_numpy()
    return hits


def curve_of(training: TrainingResult) -> Curve:
    """Loss and accuracy of each epoch, as they were logged."""
    client = mlflow.MlflowClient()
    series = [
        [point.value for point in sorted(client.get_metric_history(training.run.info.run_id, name), key=_step)]
        for name in CURVES
    ]
    return Curve(training.name, *series)


def _step(point: mlflow.entities.Metric) -> int:
    return int(point.step)


def table_of(trainings: Sequence[TrainingResult], results: Mapping[str, Interval]) -> list[str]:
    """Lines of a table: one training per row, with what it started from."""
    rows: list[Sequence[str]] = [("run", "weights", "accuracy, 95 % interval", "precision", "recall", "F1")]
    for training in trainings:
        metrics, weights = training.run.data.metrics, used_params(training.run)["weights"]
        scores = [f"{100 * metrics[f'test/{name}']:.2f}" for name in ("precision", "recall", "f1")]
        rows.append((training.name, short_weights(weights), results[training.name].percent(), *scores))
    return aligned(rows)
