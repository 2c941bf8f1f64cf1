"""Params of a run: the values that were used, under one name each.

`mlflow run` logs a project's parameters itself, as the strings that were typed, before our code starts, and MLflow has
no call that changes a param. In a store that this process opens itself the typed string is therefore replaced through
MLflow's own table classes: only so do the run table, its comparison and parallel coordinates show what was used. A
server cannot be asked for that; there the used value stands beside the typed one, as `used.NAME`, and `used_params`
reads it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import mlflow
from mlflow.entities import Param, Run

from pipelines.store.redaction import redact

_USED = "used."
_GIVEN = "given."


def log_params(params: Mapping[str, Any]) -> None:
    """Log params of the active run; those that it has with another value are replaced."""
    run = mlflow.active_run()
    assert run is not None
    client = mlflow.MlflowClient()
    known = client.get_run(run.info.run_id).data.params
    values = {key: redact(str(value)) for key, value in params.items()}
    new = {key: value for key, value in values.items() if key not in known}
    other = {key: value for key, value in values.items() if known.get(key, value) != value}
    client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in new.items()])
    if other:
        _replace(run.info.run_id, other)


def log_given(params: Mapping[str, Any]) -> None:
    """Keep what was given where the value that was used would not ask for the same again: a size that was chosen."""
    mlflow.set_tags({_GIVEN + key: redact(str(value)) for key, value in params.items()})


def given_params(run: Run) -> dict[str, str]:
    """Return the params that ask for a run again."""
    tags = run.data.tags.items()
    return used_params(run) | {name.removeprefix(_GIVEN): value for name, value in tags if name.startswith(_GIVEN)}


def used_params(run: Run) -> dict[str, str]:
    """Return a run's params as they were used."""
    params = {name: _unquoted(value) for name, value in run.data.params.items() if not name.startswith(_USED)}
    used = {name.removeprefix(_USED): value for name, value in run.data.params.items() if name.startswith(_USED)}
    return params | used


def _replace(run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.store.tracking.dbmodels.models import SqlParam
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service.utils import _get_store

    store = _get_store()
    if not isinstance(store, SqlAlchemyStore):
        beside = [Param(_USED + key, value) for key, value in params.items()]
        mlflow.MlflowClient().log_batch(run_id, params=beside)
        return
    with store.ManagedSessionMaker(read_only=False) as session:
        for key, value in params.items():
            session.merge(SqlParam(run_uuid=run_id, key=key, value=value))


def _unquoted(value: str) -> str:
    """Return a param as it was meant: `mlflow run` records it in the quotes that it gives it for the shell."""
    parts = shlex.split(value) if value[:1] in ("'", '"') else [value]
    return "".join(parts) if len(parts) < 2 else value
