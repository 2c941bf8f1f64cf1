"""Curves and data sets of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
from mlflow.entities import Metric

from tl_core.data.dataset import ImageDataset
from tl_core.scoring.images import Interval

_DIGEST_LENGTH, _PROFILE_LENGTH, _TAG_LENGTH, _BATCH_LENGTH = 36, 16_777_215, 5000, 1000  # what the store takes


def interval_metrics(name: str, found: Interval) -> dict[str, float]:
    """Return the metrics of a share with its interval: NAME, NAME_low and NAME_high."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def log_series(series: Mapping[str, Sequence[float]]) -> None:
    """Log whole curves of the active run, with the position as step, in as few calls as the store takes."""
    run = mlflow.active_run()
    assert run is not None
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, values in series.items() for step, value in enumerate(values)]
    for start in range(0, len(metrics), _BATCH_LENGTH):
        mlflow.MlflowClient().log_batch(run.info.run_id, metrics=metrics[start : start + _BATCH_LENGTH])


def log_dataset(dataset: ImageDataset, context: str) -> None:
    """Record the data as an input of the active run, and as tags its fingerprint, and what was left out or repaired."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    run = mlflow.active_run()
    assert run is not None
    entity = Dataset(
        name=Path(dataset.name).name,
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
