"""Runs of processes that are known to have ended are closed, and no others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import mlflow
import psutil
import pytest

from pipelines.store.connection import prepare_store
from pipelines.store.process import PROCESS, this_process
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

HERE = socket.gethostname()
PLACE, NUMBER, START = this_process().rsplit(":", 2)
BOOT, _, CONTAINER = PLACE.partition("@")[2].partition(".")
LONG_AGO, SOON = int(psutil.boot_time()) - 10_000, int(time.time()) + 10_000
NOBODY = 2**22 + 1  # above the largest number of a process

TAGS = {
    this_process(): "RUNNING",
    f"{PLACE}:{NOBODY}:{START}": "KILLED",
    f"{PLACE}:{NUMBER}:{LONG_AGO}": "KILLED",  # the number was given again
    f"{HERE}:{NUMBER}:{START}": "RUNNING",  # as earlier versions wrote it
    f"{HERE}:{NOBODY}:{START}": "KILLED",
    f"{HERE}@{BOOT}.4026539999:1:{SOON}": "RUNNING",  # another container of this machine, with the same host name
    f"{HERE}@0ld0ld00.{CONTAINER}:{NUMBER}:{LONG_AGO}": "KILLED",  # before the machine was started again
    f"{HERE}@0ther000.{CONTAINER}:{NUMBER}:{SOON}": "RUNNING",  # another machine with the same name
    f"{HERE}-2:{NOBODY}:{START}": "RUNNING",  # a host whose name begins like this one's
    f"elsewhere:{NOBODY}:{START}": "RUNNING",
}


def test_runs_of_ended_processes_are_closed_and_no_others(store: str) -> None:
    client = mlflow.MlflowClient()
    runs = {tag: client.create_run("0", tags={PROCESS: tag}).info.run_id for tag in TAGS}
    prepare_store()
    assert {tag: client.get_run(run_id).info.status for tag, run_id in runs.items()} == TAGS


WITHOUT_NAME = """
import os
from pipelines.store.process import user_name
os.setgid(54321); os.setuid(54321)
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
print(user_name())
"""


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="root alone can become somebody else")
def test_a_user_without_a_name_has_a_number() -> None:
    found = subprocess.run([sys.executable, "-c", WITHOUT_NAME], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "user-54321\n"
