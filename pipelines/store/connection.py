"""The tracking store: where it is, and whether it answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import mlflow
import psutil
from filelock import FileLock
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipelines.configs.fields import ROOT

STORE = ROOT / "mlruns"
EXPERIMENT = "transfer-lab"

_NOTE = (
    "Few-shot transfer learning. A `main` run holds the whole line; open it to see its steps, and `finetune` to see "
    "one run per episode. The artifact `report.html` of a run says in words and pictures what it found; every mean has "
    "its 95 % interval beside it, under the same name with `_ci95`."
)

KIND = "kind"
"""Tag that says which entry point a run belongs to."""

PROCESS = "process"
"""Tag that says which process a run belongs to: host, number and start, so that a dead one's runs can be closed."""

_CLOCK_CORRECTION = 60  # seconds


def default_tracking_uri() -> str:
    """The checkout's own store: SQLite beside its artifacts."""
    return f"sqlite:///{STORE / 'mlflow.db'}"


def prepare_store() -> None:
    """Point MLflow at the store and create it once.

    Two processes that create the tables of one SQLite file at the same time ruin it, hence the lock. The
    experiment is made here so that its artifacts lie inside `mlruns/`; `MLFLOW_TRACKING_URI` wins where set.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(default_tracking_uri())
    STORE.mkdir(exist_ok=True)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    with FileLock(STORE / ".lock"):
        client = mlflow.MlflowClient()
        if client.get_experiment_by_name(name) is None:
            local = mlflow.get_tracking_uri().startswith("sqlite")
            client.create_experiment(name, artifact_location=(STORE / "artifacts").as_uri() if local else None)
        _describe_experiment(client, name)
    if not os.environ.get("MLFLOW_RUN_ID"):  # under `mlflow run` the experiment is already chosen
        mlflow.set_experiment(name)
    _close_runs_of_dead_processes(name)


def _describe_experiment(client: mlflow.MlflowClient, name: str) -> None:
    """Say once what the experiment is; `mlflow run` may have made it, and people may have said it better."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    if MLFLOW_RUN_NOTE not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, MLFLOW_RUN_NOTE, _NOTE)


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def _close_runs_of_dead_processes(experiment: str) -> None:
    """Mark as KILLED what processes of this machine have left RUNNING when they were killed."""
    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(experiment)
    assert known is not None
    ours = f"attributes.status = 'RUNNING' and tags.{PROCESS} LIKE '{socket.gethostname()}:%'"
    for run in client.search_runs([known.experiment_id], ours):
        _, number, start = run.data.tags[PROCESS].rsplit(":", 2)
        with suppress(psutil.NoSuchProcess):
            # Not to the second: a correction of the clock moves every start.
            if abs(psutil.Process(int(number)).create_time() - float(start)) <= _CLOCK_CORRECTION:
                continue
        client.set_tag(run.info.run_id, "error", "the process ended without closing this run")
        client.set_terminated(run.info.run_id, "KILLED")


@contextmanager
def promotion_lock() -> Iterator[None]:
    """Let one process at a time ask who is champion and change it: MLflow's aliases cannot be swapped atomically."""
    with FileLock(STORE / ".promotion.lock"):
        yield


def is_away(error: MlflowException) -> bool:
    """Whether the store could not be reached, after all of MLflow's own retries; an answer is no such error."""
    unreachable = not isinstance(error, RestException) and str(error.message).startswith("API request to")
    return unreachable or error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE)
