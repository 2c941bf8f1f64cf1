"""The tracking store: where it is, and whether it answers.

It is MLflow's own default, `mlflow.db` in the working directory with the artifacts in `mlruns/` beside it, so that
`mlflow run` and `mlflow ui` find it without a flag. `MLFLOW_TRACKING_URI` wins where it is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import sqlalchemy
from filelock import FileLock
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from sqlalchemy.exc import DBAPIError

from pipelines.store import sqlite
from pipelines.store.moved import follow_moved_store
from pipelines.store.process import close_runs_of_dead_processes, user_name
from pipelines.store.redaction import redact
from pipelines.store.sqlite import check_tracking_file
from pipelines.store.views import save_views
from tl_core.data.dataset import default_cache_dir
from tl_core.errors import InputError
from tl_core.files import disk_full_as_input_error, say_sqlite_error

ARTIFACTS = "mlruns"
"""Folder of the artifacts, beside the file of a SQLite store."""

OLD_STORE = Path("mlruns", "mlflow.db")
"""Store of earlier versions."""

_OTHER_SCHEMA = "out-of-date database schema"

_NOTE = (  # of which the page shows one line, until it is opened
    "Click a run, then *Artifacts*, then `report.html`: what it found, in words and figures. `champion` marks the run "
    "that made the version in use of a registered model. A `classify` run is one file and how often it is right; a "
    "`main` run is what transfer is worth, with its steps nested in it, and `finetune` one run per episode. `accuracy` "
    "has its 95 % interval beside it, `accuracy_low` to `accuracy_high`, over images; `_ci95` is the half of one over "
    "episodes."
)


def prepare_store() -> None:
    """Create the store once, choose its experiment, and close the runs of processes that are gone.

    Two processes that create the tables of one SQLite file at the same time ruin it, hence the lock.
    """
    os.environ.setdefault("LOGNAME", user_name())  # MLflow asks for it, and ends where there is none
    uri = mlflow.get_tracking_uri()
    file = _sqlite_file(uri)
    with FileLock(_lock_folder() / ".lock"):
        if file is not None and not check_tracking_file(file, uri):
            _mention_old_store()
            _create_tables(uri, file)
        elif file is not None:
            follow_moved_store(file, file.parent / ARTIFACTS, sqlite.PATIENCE)
        client = mlflow.MlflowClient()
        experiment_id = _experiment_id(client, file)
        if file is not None:  # a server's experiments are its users' to describe
            _describe_experiment(client, experiment_id)
            save_views(client, experiment_id)
    if not os.environ.get("MLFLOW_RUN_ID"):  # under `mlflow run` the experiment is already chosen
        mlflow.set_experiment(experiment_id=experiment_id)
    close_runs_of_dead_processes(experiment_id)


def store_folder() -> Path:
    """Return the folder of a SQLite store, and the working directory for any other."""
    file = _sqlite_file(mlflow.get_tracking_uri())
    return Path.cwd() if file is None else file.parent


def study_storage() -> str:
    """Return where Optuna's studies live: $OPTUNA_STORAGE, else a SQLite file beside the tracking store.

    They have a file of their own, since two libraries that migrate one file cannot share it.
    """
    file = store_folder() / "studies.db"
    return os.environ.get("OPTUNA_STORAGE") or str(sqlalchemy.URL.create("sqlite", database=str(file)))


@contextmanager
def promotion_lock() -> Iterator[None]:
    """Let one process at a time read and change the champion: MLflow's aliases cannot be swapped atomically."""
    with FileLock(_lock_folder() / ".promotion.lock"):
        yield


def is_unreachable(error: MlflowException) -> bool:
    """Return whether the store could not be reached, after all of MLflow's retries; an answer is no such error."""
    unreachable = not isinstance(error, RestException) and str(error.message).startswith("API request to")
    return unreachable or error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE)


def store_error_as_input_error(error: MlflowException | DBAPIError, *, kept: bool) -> Exception:
    """Return an `InputError` for a store that does not answer or is not fit for use, and any other error as it is.

    Args:
        kept: whether the same command will find what was computed.
    """
    store = f"the tracking store {redact(mlflow.get_tracking_uri())}"
    reason = say_sqlite_error(error) or say_sqlite_error(error.__cause__)
    if reason:
        return InputError(f"{store} {reason}{'; what was computed is kept' if kept else ''}")
    if isinstance(error, MlflowException) and _OTHER_SCHEMA in str(error.message):
        return InputError(
            f"{store} is of another release of MLflow; copy it, then give its address to mlflow db upgrade"
        )
    if isinstance(error, DBAPIError) or not is_unreachable(error):
        return error
    kept_words = "what was computed is kept, and the same command uploads it once the store answers"
    return InputError(f"{store} does not answer; {kept_words if kept else 'start it and repeat the command'}")


def _lock_folder() -> Path:
    """Return a folder for locks: beside the artifacts of a SQLite store, in the cache for any other."""
    local = _sqlite_file(mlflow.get_tracking_uri()) is not None
    folder = store_folder() / ARTIFACTS if local else default_cache_dir()
    with disk_full_as_input_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite store, None for any other."""
    if not uri.startswith("sqlite:"):
        return None
    database = sqlalchemy.make_url(uri).database
    return Path(database).absolute() if database and database != ":memory:" else None


def _create_tables(uri: str, file: Path) -> None:
    """Create a SQLite store whose artifacts lie beside it; MLflow alone would put them into the working directory."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, (file.parent / ARTIFACTS).as_uri())  # an address: a path may hold %, # or quotes


def _experiment_id(client: mlflow.MlflowClient, file: Path | None) -> str:
    """Return the experiment that runs go to, MLflow's default one unless another is named; make it if need be."""
    name, given = os.environ.get("MLFLOW_EXPERIMENT_NAME"), os.environ.get("MLFLOW_EXPERIMENT_ID")
    try:
        experiment = client.get_experiment_by_name(name) if name and not given else client.get_experiment(given or "0")
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise InputError(
            f"expected the id of an experiment in MLFLOW_EXPERIMENT_ID, got {given or '0'!r}, which is not in "
            f"{redact(mlflow.get_tracking_uri())}; give another, or a name in MLFLOW_EXPERIMENT_NAME"
        ) from error
    if experiment is None:
        location = None if file is None else (file.parent / ARTIFACTS).as_uri()
        return str(client.create_experiment(str(name), artifact_location=location))
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise InputError(
            f"experiment {experiment.name!r} is deleted; restore it with mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}, or give the name of another in MLFLOW_EXPERIMENT_NAME"
        )
    return str(experiment.experiment_id)


def _describe_experiment(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Say once what the experiment is; people may have said it better."""
    if MLFLOW_RUN_NOTE not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, MLFLOW_RUN_NOTE, _NOTE)


def _mention_old_store() -> None:
    if OLD_STORE.is_file() and not os.environ.get("MLFLOW_TRACKING_URI"):
        print(
            f"note: the records of an earlier version are in {OLD_STORE}; to go on with them, give "
            f"MLFLOW_TRACKING_URI=sqlite:///{OLD_STORE} to every command",
            file=sys.stderr,
        )
