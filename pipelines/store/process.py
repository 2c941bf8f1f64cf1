"""The process that a run belongs to, so that the runs of a dead one can be closed."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

import mlflow
import psutil

PROCESS = "process"
"""Tag of a run: the place of its process, its number and its start time."""

_CLOCK_CORRECTION = 60  # seconds


def this_process() -> str:
    """Return the value of the `PROCESS` tag for this process."""
    return f"{_place()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def user_name() -> str:
    """Return the user's name, or its number where the machine knows no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user-{os.getuid()}"


def close_runs_of_dead_processes(experiment_id: str) -> None:
    """Mark as KILLED the runs that processes of this machine left RUNNING when they were killed."""
    client = mlflow.MlflowClient()
    host = f"attributes.status = 'RUNNING' and tags.{PROCESS} LIKE '{socket.gethostname()}%'"
    for run in client.search_runs([experiment_id], host):
        if _is_dead(run.data.tags[PROCESS]):
            client.set_tag(run.info.run_id, "error", "the process ended without closing this run")
            client.set_terminated(run.info.run_id, "KILLED")


@cache
def _place() -> str:
    """Place in which a process number means one process: a host since it was started, and a container in it.

    Containers may have the same host name, and each counts its processes from 1.
    """
    boot, container = "", ""
    with suppress(OSError):  # Linux has them
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().partition("-")[0]
        container = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{socket.gethostname()}@{boot}.{container}"


def _is_dead(process: str) -> bool:
    """True if a process of this host is known to have ended; of another container nothing is known."""
    place, number, start = process.rsplit(":", 2)
    host, _, since = place.partition("@")
    if host != socket.gethostname():  # a longer name
        return False
    if since and place != _place():
        same_boot = since.partition(".")[0] == _place().partition("@")[2].partition(".")[0]
        return not same_boot and float(start) < psutil.boot_time() - _CLOCK_CORRECTION
    with suppress(psutil.NoSuchProcess):
        # Not to the second: a correction of the clock moves every start.
        return bool(abs(psutil.Process(int(number)).create_time() - float(start)) > _CLOCK_CORRECTION)
    return True
