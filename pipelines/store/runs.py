"""Runs: opened, nested, found again, and closed whatever happens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_USER
from mlflow.utils.name_utils import _GENERATOR_NOUNS, _GENERATOR_PREDICATES
from sqlalchemy.exc import DBAPIError

from pipelines.configs.fields import flat_params
from pipelines.store.checkpoints import checkpoints_of_run
from pipelines.store.connection import is_unreachable, prepare_store, store_error_as_input_error
from pipelines.store.params import log_params
from pipelines.store.process import PROCESS, this_process, user_name
from pipelines.store.redaction import redact
from tl_core.errors import InputError, enough_memory

KIND = "kind"
"""Tag of a run: the entry point that it belongs to."""

_MOST_NAME = 200
"""Characters of a run's name: a store takes no more than 250."""


@contextmanager
def tracked_run(kind: str, config: Any, name: str = "") -> Iterator[str]:
    """Open a run of one kind, nested under the active one, and close it whatever happens; yields its id.

    The config's values become its params at the end, but for those that `log_params` has logged by then: these are the
    values that were used. A run ends FINISHED, FAILED with the message in its `error` tag, or KILLED when it was
    interrupted.

    Args:
        name: shown in the table of runs; by default the kind.
    """
    nested = mlflow.active_run() is not None
    try:
        if not nested:
            prepare_store()
            name = _name_given_to_mlflow() or name
        name = _shown(name)
        run = _start_run(kind, name, nested)
    except (MlflowException, DBAPIError) as error:
        if nested:
            raise  # the outer run says what is kept
        raise store_error_as_input_error(error, kept=False) from error
    with checkpoints_of_run() as held:
        try:
            with _closed_in_any_case(), enough_memory():
                mlflow.set_tag(MLFLOW_RUN_NAME, name or kind)  # `mlflow run` has given it another one
                yield from _with_params(run, config)
        except (MlflowException, DBAPIError) as error:
            if nested:
                raise
            raise store_error_as_input_error(error, kept=held.any_left()) from error


def _with_params(run: Run, config: Any) -> Iterator[str]:
    """Yield the run's id, and log those of the config's values that nobody has logged meanwhile."""
    run_id: str = run.info.run_id
    typed = dict(run.data.params)  # by `mlflow run`, before our code started
    try:
        yield run_id
    except MlflowException:
        raise  # the store may be away
    except BaseException:
        with suppress(MlflowException):  # the error itself is what must be heard
            _log_missing(run_id, config, typed)
        raise
    _log_missing(run_id, config, typed)


def _log_missing(run_id: str, config: Any, typed: Mapping[str, str]) -> None:
    logged = mlflow.MlflowClient().get_run(run_id).data.params
    log_params({key: value for key, value in flat_params(config).items() if logged.get(key) == typed.get(key)})


@contextmanager
def _closed_in_any_case() -> Iterator[None]:
    status = "FINISHED"
    try:
        yield
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        if isinstance(error, MlflowException) and is_unreachable(error):
            os.environ[MLFLOW_HTTP_REQUEST_MAX_RETRIES.name] = "0"  # it was waited for
            raise
        reason = redact(str(error))
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
        if status == "FINISHED" or not is_unreachable(error):
            raise


def _start_run(kind: str, name: str, nested: bool) -> Run:
    try:
        # With its tags at once: a process that dies between two calls must not leave a run that nobody closes.
        return mlflow.start_run(run_name=name or kind, nested=nested, tags={KIND: kind, PROCESS: this_process()})
    except MlflowException as error:
        if is_unreachable(error):
            raise
        raise InputError(
            f"the run that `mlflow run` opened is not in {redact(mlflow.get_tracking_uri())} ({error.message}); "
            "start it from the project's folder, or give an absolute MLFLOW_TRACKING_URI"
        ) from error


def _name_given_to_mlflow() -> str:
    """Return the name that the user gave the run, by `mlflow run --run-name` or MLFLOW_RUN_NAME; empty if none."""
    opened = os.environ.get("MLFLOW_RUN_ID")
    if not opened:
        return os.environ.get("MLFLOW_RUN_NAME", "")
    try:
        name = mlflow.MlflowClient().get_run(opened).info.run_name or ""
    except MlflowException as error:
        if is_unreachable(error):
            raise
        return ""  # what is wrong with it is said when it is opened
    first, _, rest = name.partition("-")
    by_chance = first in _GENERATOR_PREDICATES and rest.partition("-")[0] in _GENERATOR_NOUNS
    return "" if by_chance else name


def rename_run(before: str, after: str) -> None:
    """Give the active run a better name than the one that it was opened with, unless its user has named it."""
    run = mlflow.active_run()
    assert run is not None
    if mlflow.get_run(run.info.run_id).data.tags.get(MLFLOW_RUN_NAME) == _shown(before) and after != before:
        mlflow.set_tag(MLFLOW_RUN_NAME, _shown(after))


def _shown(name: str) -> str:
    return redact(name)[:_MOST_NAME]


def child_tags(kind: str) -> dict[str, str]:
    """Return tags that make a run made with `MlflowClient.create_run` a child of the active one."""
    parent = mlflow.active_run()
    assert parent is not None
    user = parent.data.tags.get(MLFLOW_USER) or user_name()
    return {MLFLOW_PARENT_RUN_ID: parent.info.run_id, MLFLOW_USER: user, KIND: kind, PROCESS: this_process()}
