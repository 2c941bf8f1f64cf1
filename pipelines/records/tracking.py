"""MLflow: where the records are, runs that are always closed, and the artifacts that travel between entry points."""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import psutil
from filelock import FileLock
from mlflow.entities import Metric, Param, Run
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE, ErrorCode
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE, MLFLOW_USER

from pipelines.configs import ROOT, flat_params
from pipelines.records.redaction import redact
from pipelines.records.spool import forget, keep_for_sync
from tl_core.datasets import ImageDataset, default_cache_dir
from tl_core.errors import InputError, enough_memory

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

_DIGEST_LENGTH, _PROFILE_LENGTH, _BATCH_LENGTH = 36, 16_777_215, 1000  # what the store takes


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


@contextmanager
def tracked_run(kind: str, config: Any, name: str = "") -> Iterator[str]:
    """Open a run of one kind, nested under the active one, and close it whatever happens; yields its id.

    `name` is what the table of runs shows; by default the kind. A run ends FINISHED, FAILED with the message in its
    `error` tag, or KILLED when it was interrupted.
    """
    nested = mlflow.active_run() is not None
    try:
        if not nested:
            prepare_store()
        run = _start_run(kind, name, nested)
    except MlflowException as error:
        if nested:
            raise  # to whoever has opened the outer run and keeps its command for later
        raise _sentence_of(error, "start it and repeat the command") from error
    run_id: str = run.info.run_id
    try:
        with _closed_in_any_case(), enough_memory():
            mlflow.set_tag(MLFLOW_RUN_NAME, name or kind)  # `mlflow run` has given it another one
            log_params(flat_params(config))
            yield run_id
    except MlflowException as error:
        if nested or not is_away(error):
            raise
        keep_for_sync(kind, config)
        raise _sentence_of(error, "what was computed is kept: python -m pipelines.sync uploads it") from error
    if not nested:
        forget(kind, config)


@contextmanager
def _closed_in_any_case() -> Iterator[None]:
    status = "FINISHED"
    try:
        yield
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        if isinstance(error, MlflowException) and is_away(error):
            os.environ[MLFLOW_HTTP_REQUEST_MAX_RETRIES.name] = "0"  # it was waited for
            raise
        # File names need not be text; the store takes nothing else.
        reason = redact(str(error)).encode("utf-8", "backslashreplace").decode()
        with suppress(MlflowException):  # the error itself is what must be heard
            mlflow.set_tag("error", reason[:1000] or type(error).__name__)
        raise
    finally:
        _end_run(status)


def _end_run(status: str) -> None:
    try:
        mlflow.end_run(status)
    except MlflowException as error:
        # A run that did not finish is then closed by the next process, as those of dead ones are.
        if status == "FINISHED" or not is_away(error):
            raise


def is_away(error: MlflowException) -> bool:
    """Whether the store could not be reached, after all of MLflow's own retries; an answer is no such error."""
    unreachable = not isinstance(error, RestException) and str(error.message).startswith("API request to")
    return unreachable or error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE)


def _sentence_of(error: MlflowException, advice: str) -> Exception:
    if not is_away(error):
        return error
    return InputError(f"the tracking store {redact(mlflow.get_tracking_uri())} does not answer; {advice}")


def _start_run(kind: str, name: str, nested: bool) -> Run:
    try:
        # With its tags at once: a process that dies between two calls must not leave a run that nobody closes.
        return mlflow.start_run(run_name=name or kind, nested=nested, tags={KIND: kind, PROCESS: _this_process()})
    except MlflowException as error:
        if is_away(error):
            raise
        raise InputError(
            f"the run that `mlflow run` opened is not in {redact(mlflow.get_tracking_uri())} ({error.message}); "
            "start it from the project's folder, or give an absolute MLFLOW_TRACKING_URI"
        ) from error


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


def child_tags(kind: str) -> dict[str, str]:
    """Tags that make a run made with `MlflowClient.create_run` a child of the active one."""
    parent = mlflow.active_run()
    assert parent is not None
    user = parent.data.tags.get(MLFLOW_USER) or getpass.getuser()
    return {MLFLOW_PARENT_RUN_ID: parent.info.run_id, MLFLOW_USER: user, KIND: kind, PROCESS: _this_process()}


def find_run(run_id: str, *kinds: str) -> Run:
    """The finished run of this id, of one of these kinds.

    Raises:
        InputError: there is none, it is of another kind, or it did not finish.
    """
    wanted = " or ".join(kinds)
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        if is_away(error):
            raise
        raise InputError(f"no {wanted} run {run_id!r} in {redact(mlflow.get_tracking_uri())}") from error
    found = run.data.tags.get(KIND, "unknown")
    if found not in kinds:
        raise InputError(f"run {run_id} is of kind {found}; what is needed here is {wanted}")
    if run.info.status != "FINISHED":
        raise InputError(f"{found} run {run_id} is {run.info.status}; only a FINISHED one can be used")
    return run


def fetch_artifact(run_id: str, name: str) -> Path:
    """Local path of an artifact of a run; one that lies on another machine is downloaded into the cache.

    Raises:
        InputError: the run has no such artifact.
    """
    uri = mlflow.MlflowClient().get_run(run_id).info.artifact_uri
    assert uri is not None
    try:
        if urlparse(uri).scheme in ("", "file"):
            path = Path(local_file_uri_to_path(uri), name)
        else:
            folder = default_cache_dir() / "artifacts" / run_id
            path = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and is_away(error):
            raise
        raise InputError(f"artifact {name!r} of run {run_id} cannot be fetched ({error})") from error
    if not path.exists():
        raise InputError(f"run {run_id} has no artifact {name!r}")
    return path
