"""Nested runs, written by a thread of their own: whoever computes does not wait for the store."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipelines.store.connection import is_unreachable
from pipelines.store.process import PROCESS
from pipelines.store.redaction import redact
from pipelines.store.runs import child_tags

_MAX_WAITING = 1000  # runs in memory at most, where the store is slower than the work


@dataclass(frozen=True)
class FinishedRun:
    """A run to be written; `start` and `end` are seconds since the epoch."""

    name: str
    start: float
    end: float
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    params: Mapping[str, object] = field(default_factory=dict)


class ChildRuns:
    """Finished runs nested under the active one; `close` returns when all are written.

    A server that goes away does not stop the work: what it misses is not written, and `close` raises the error.
    """

    def __init__(self, kind: str) -> None:
        run = mlflow.active_run()
        assert run is not None
        self._experiment = run.info.experiment_id
        self._tags = child_tags(kind)
        self._client = mlflow.MlflowClient()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"write-{kind}")
        self._waiting: list[Future[None]] = []
        self._away: MlflowException | None = None

    def add(self, run: FinishedRun) -> None:
        """Have one run written."""
        if len(self._waiting) >= _MAX_WAITING:
            self._settle()
        self._waiting.append(self._writer.submit(self._write_unless_away, run))

    def close(self) -> None:
        """Wait for what is not yet written; raises what writing raised."""
        self._settle()
        self._writer.shutdown()
        if self._away is not None:
            raise self._away
        self._delete_doubles()

    def _settle(self) -> None:
        for future in self._waiting:
            future.result()
        self._waiting.clear()

    def _delete_doubles(self) -> None:
        """A request whose answer was lost is made again, and a run that nobody knows of stays open."""
        ours = " and ".join(f"tags.`{name}` = '{self._tags[name]}'" for name in (MLFLOW_PARENT_RUN_ID, PROCESS))
        for run in self._client.search_runs([self._experiment], f"{ours} and attributes.status = 'RUNNING'"):
            self._client.delete_run(run.info.run_id)

    def _write_unless_away(self, run: FinishedRun) -> None:
        if self._away is not None:
            return
        try:
            self._write(run)
        except MlflowException as error:
            if not is_unreachable(error):
                raise
            self._away = error

    def _write(self, run: FinishedRun) -> None:
        start, end = int(1000 * run.start), int(1000 * run.end)
        # The name by its own argument: the tag alone would leave the run's name to chance.
        child = self._client.create_run(
            self._experiment,
            start_time=start,
            tags=self._tags | {key: redact(value) for key, value in run.tags.items()},
            run_name=run.name,
        )
        self._client.log_batch(
            child.info.run_id,
            params=[Param(key, redact(str(value))) for key, value in run.params.items()],
            metrics=[Metric(key, value, end, 0) for key, value in run.metrics.items()],
        )
        self._client.set_terminated(child.info.run_id, end_time=end)
