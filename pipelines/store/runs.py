"""Runs: opened, nested, and closed whatever happens."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_USER

from pipelines.configs.fields import flat_params
from pipelines.store.connection import KIND, PROCESS, _this_process, is_away, prepare_store
from pipelines.store.logging import log_params
from pipelines.store.redaction import redact
from pipelines.store.spool import forget, keep_for_sync
from tl_core.errors import InputError, enough_memory


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
