"""Finding a finished run by its id, by a prefix of it, or as the last one of its kind."""

from __future__ import annotations

import re

import mlflow
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipelines.store.connection import is_unreachable
from pipelines.store.redaction import redact
from pipelines.store.runs import KIND
from tl_core.errors import InputError

LAST = "last"
"""Word for the newest finished run of the wanted kind."""

_FULL_LENGTH, _SHORTEST = 32, 4
_MOST_NAMED = 5


def find_run(run_id: str, *kinds: str) -> Run:
    """Return the finished run of this id, of one of these kinds.

    Args:
        run_id: an id, a prefix of at least 4 digits that no other run of these kinds has, or `last`.

    Raises:
        InputError: there is none or there are several, it is of another kind, or it did not finish.
    """
    if run_id == LAST:
        return _newest(kinds)
    run = _by_prefix(run_id, kinds) if _is_prefix(run_id) else _by_id(run_id, kinds)
    found = run.data.tags.get(KIND, "unknown")
    if found not in kinds:
        raise InputError(f"expected a run of kind {' or '.join(kinds)}, got run {run.info.run_id} of kind {found}")
    if run.info.status != "FINISHED" and not _is_parent(run):
        raise InputError(f"{found} run {run.info.run_id} is {run.info.status}; only a FINISHED one can be used")
    return run


def _is_parent(run: Run) -> bool:
    """Return whether the active run is a step of this one, which has logged by now what the step needs."""
    active = mlflow.active_run()
    return active is not None and active.data.tags.get(MLFLOW_PARENT_RUN_ID) == run.info.run_id


def _is_prefix(run_id: str) -> bool:
    return _SHORTEST <= len(run_id) < _FULL_LENGTH and re.fullmatch("[0-9a-f]+", run_id) is not None


def _by_id(run_id: str, kinds: tuple[str, ...]) -> Run:
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        if is_unreachable(error):
            raise
        raise _nothing_found(run_id, kinds) from error
    if run.info.lifecycle_stage == LifecycleStage.DELETED:
        raise _nothing_found(run_id, kinds)
    return run


def _by_prefix(prefix: str, kinds: tuple[str, ...]) -> Run:
    runs = _search(f"attributes.run_id LIKE '{prefix}%'", _MOST_NAMED + 1)
    if not runs:
        raise _nothing_found(prefix, kinds)
    wanted = [run for run in runs if run.data.tags.get(KIND) in kinds] or runs
    if len(wanted) > 1:
        named = ", ".join(f"{run.info.run_id[:12]} ({run.info.run_name})" for run in wanted[:_MOST_NAMED])
        raise InputError(f"expected the id of one run, got {prefix!r}, which several runs begin with: {named}")
    return wanted[0]


def _newest(kinds: tuple[str, ...]) -> Run:
    newest = [run for kind in kinds for run in _search(f"tags.{KIND} = '{kind}' and attributes.status = 'FINISHED'", 1)]
    if not newest:
        raise _nothing_found(LAST, kinds)
    return max(newest, key=lambda run: int(run.info.start_time))


def _search(wanted: str, most: int) -> list[Run]:
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments(ViewType.ACTIVE_ONLY)]
    newest_first = ["attributes.start_time DESC"]
    return list(client.search_runs(experiments, wanted, ViewType.ACTIVE_ONLY, most, newest_first))


def _nothing_found(run_id: str, kinds: tuple[str, ...]) -> InputError:
    wanted = " or ".join(kinds)
    return InputError(
        f"no {wanted} run {run_id!r} in {redact(mlflow.get_tracking_uri())}; expected an id, a prefix of one with at "
        f"least {_SHORTEST} digits, or {LAST}"
    )
