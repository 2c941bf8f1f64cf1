"""Progress of a command of many steps: `step 3 of 7: ...`, and how long that took the last time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import mlflow
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipelines.reports.words import say_seconds
from pipelines.store.params import used_params
from pipelines.store.runs import KIND

Config = TypeVar("Config")

_LOOKED_AT = 20  # runs of the same kind among which one on the same data is looked for
_SHORT = 5.0  # seconds that nobody needs to be told of before


class Steps:
    """Counts the steps of a command and says which one begins.

    Args:
        known: seconds of some steps by their number, from 1 on.
    """

    def __init__(self, total: int, known: Mapping[int, float] | None = None) -> None:
        self._total, self._number = total, 0
        self._known = known or {}

    def run(self, what: str, entry_point: Callable[[Config], str], config: Config) -> str:
        """Run an entry point as the next step; returns its run's id."""
        self.begin(what)
        return entry_point(config)

    def begin(self, what: str) -> None:
        """Say that the next step begins."""
        self._number += 1
        seconds = self._known.get(self._number, 0.0)
        known = f" ({say_seconds(seconds)} the last time)" if seconds >= _SHORT else ""
        print(f"step {self._number} of {self._total}: {what}{known}", flush=True)


def seconds_of_stages(kind: str, stages: Sequence[str], **params: str) -> dict[int, float]:
    """Read how long the stages of the last finished run of a kind took, by number: its metrics `seconds/STAGE`.

    Args:
        params: those that it has to have been given.
    """
    run = _last_like(kind, params)
    if run is None:
        return {}
    found = {number: run.data.metrics.get(f"seconds/{stage}") for number, stage in enumerate(stages, start=1)}
    return {number: seconds for number, seconds in found.items() if seconds is not None}


def seconds_of_children(kind: str, total: int, **params: str) -> dict[int, float]:
    """Read how long the nested runs of the last finished run of a kind took, if there were as many as there are now."""
    run = _last_like(kind, params)
    if run is None:
        return {}
    wanted = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'"
    found = mlflow.MlflowClient().search_runs(
        [run.info.experiment_id], wanted, order_by=["attributes.start_time ASC"], max_results=total + 1
    )
    ends = [(child.info.start_time, child.info.end_time) for child in found]
    if len(ends) != total or any(end is None for _, end in ends):
        return {}
    return {number: (end - start) / 1000 for number, (start, end) in enumerate(ends, start=1)}


def _last_like(kind: str, params: Mapping[str, str]) -> Run | None:
    active = mlflow.active_run()
    assert active is not None
    wanted = f"tags.{KIND} = '{kind}' and attributes.status = 'FINISHED'"
    runs = mlflow.MlflowClient().search_runs(
        [active.info.experiment_id], wanted, order_by=["attributes.start_time DESC"], max_results=_LOOKED_AT
    )
    return next((run for run in runs if params.items() <= used_params(run).items()), None)
