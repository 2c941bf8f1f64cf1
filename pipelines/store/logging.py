"""What is logged with a run: params, curves and data sets."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param

from pipelines.store.redaction import redact
from tl_core.data.dataset import ImageDataset

_DIGEST_LENGTH, _PROFILE_LENGTH, _BATCH_LENGTH = 36, 16_777_215, 1000  # what the store takes


def log_params(params: Mapping[str, Any]) -> None:
    """Log the params that the run does not have yet: `mlflow run` has logged some, in its own spelling."""
    run = mlflow.active_run()
    assert run is not None
    client = mlflow.MlflowClient()
    known = client.get_run(run.info.run_id).data.params
    new = [Param(key, redact(str(value))) for key, value in params.items() if key not in known]
    client.log_batch(run.info.run_id, params=new)


def log_series(series: Mapping[str, Sequence[float]]) -> None:
    """Log whole curves of the active run, with the position as step, in as few calls as the store takes."""
    run = mlflow.active_run()
    assert run is not None
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, values in series.items() for step, value in enumerate(values)]
    for start in range(0, len(metrics), _BATCH_LENGTH):
        mlflow.MlflowClient().log_batch(run.info.run_id, metrics=metrics[start : start + _BATCH_LENGTH])


def log_dataset(dataset: ImageDataset, context: str) -> None:
    """Record the data as an input of the active run, and its fingerprint as a tag."""
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
