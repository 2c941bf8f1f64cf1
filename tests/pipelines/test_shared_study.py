"""Four processes on one PostgreSQL study, one killed, one asleep for a minute: the budget is exact all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipelines.configs.fields import ROOT
from tests.conftest import write_colour_images
from tests.pipelines.test_servers import home, needs_postgres, ports, servers

pytestmark = needs_postgres
__all__ = ["home", "ports", "servers"]  # fixtures

N_TRIALS = 12
LOOK = """
import mlflow, optuna, os
from optuna.trial import TrialState
trials = optuna.load_study(study_name="shared", storage=os.environ["OPTUNA_STORAGE"]).trials
told = {"reason", "surplus"}
lost = [trial for trial in trials if trial.state == TrialState.FAIL and not told & set(trial.user_attrs)]
counted = [trial for trial in trials if trial not in lost and "surplus" not in trial.user_attrs]
left_open = [trial for trial in trials if not trial.state.is_finished()]
print("counted", len(counted), "lost", len(lost), "open", len(left_open))
runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
print("running", [run.info.status for run in runs].count("RUNNING"))
# A trial may be lost before it has all of its parameters.
again = [any(trial.params.items() <= other.params.items() for other in counted) for trial in lost]
print("repeated", all(again))
"""


def test_the_trials_of_a_killed_worker_and_of_a_sleeping_one_are_repeated_by_others(
    servers: dict[str, str], tmp_path: Path
) -> None:
    environment = servers | {"TRANSFER_LAB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    data = write_colour_images(tmp_path / "data")
    search = f"-m pipelines.search --target {data} --weights random --image_size 16 --study shared --workers 1"
    size = (
        f"--n_way 3 --n_shot 2 --n_query 3 --n_trials {N_TRIALS} --n_episodes 20 --final_episodes 2 --report_episodes 2"
    )
    command = [sys.executable, *search.split(), *size.split(), "--freeze_depth", "0.5", "--steps", "15"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)

    killed, asleep = start(), start()
    wait_for_trials(environment, 2)
    os.killpg(killed.pid, signal.SIGKILL)
    os.killpg(asleep.pid, signal.SIGSTOP)
    others = start(), start()
    time.sleep(60)  # longer than the others wait for a sign of life
    os.killpg(asleep.pid, signal.SIGCONT)
    assert [worker.wait(600) for worker in (killed, asleep, *others)] == [-signal.SIGKILL, 0, 0, 0]
    # Whoever comes next closes what the killed one has left open; for itself, nothing is left to do.
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    found = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, env=environment, check=True, capture_output=True)
    text = found.stdout.decode()
    assert f"counted {N_TRIALS} lost 2 open 0" in text
    assert "running 0" in text
    assert "repeated True" in text


def wait_for_trials(environment: dict[str, str], n: int) -> None:
    """Until so many trials of the study are running at once."""
    import optuna

    os.environ["PGPASSFILE"] = environment["PGPASSFILE"]
    storage = optuna.storages.RDBStorage(environment["OPTUNA_STORAGE"])
    deadline = time.monotonic() + 300
    running = 0
    while running < n and time.monotonic() < deadline:
        time.sleep(0.2)
        trials = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
        running = sum(trial.state == optuna.trial.TrialState.RUNNING for trial in trials)
    storage.engine.dispose()
    assert running >= n, "the workers did not start"
