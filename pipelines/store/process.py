"""The process that a run belongs to, so that the runs of a dead one can be closed."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import mlflow
import psutil

PROCESS = "process"
"""Tag of a run: the host, number and start time of its process."""

_CLOCK_CORRECTION = 60  # seconds


def this_process() -> str:
    """Return the value of the `PROCESS` tag for this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def close_runs_of_dead_processes(experiment_id: str) -> None:
    """Mark as KILLED the runs that processes of this machine left RUNNING when they were killed."""
    client = mlflow.MlflowClient()
    ours = f"attributes.status = 'RUNNING' and tags.{PROCESS} LIKE '{socket.gethostname()}:%'"
    for run in client.search_runs([experiment_id], ours):
        _, number, start = run.data.tags[PROCESS].rsplit(":", 2)
        with suppress(psutil.NoSuchProcess):
            # Not to the second: a correction of the clock moves every start.
            if abs(psutil.Process(int(number)).create_time() - float(start)) <= _CLOCK_CORRECTION:
                continue
        client.set_tag(run.info.run_id, "error", "the process ended without closing this run")
        client.set_terminated(run.info.run_id, "KILLED")
