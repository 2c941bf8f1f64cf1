"""Three processes on one PostgreSQL study, one of them killed: the budget is exact and nothing is left open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.mlproject import ROOT
from tests.conftest import write_colour_images
from tests.pipelines.test_stack import needs_postgres, options

pytestmark = needs_postgres
__all__ = ["options"]  # a fixture

N_TRIALS = 14
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
print("distinct", len({tuple(sorted(trial.params.items())) for trial in counted}))
"""


def test_a_killed_worker_costs_a_trial_that_somebody_else_repeats(
    options: str,
    tmp_path: Path,
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "OPTUNA_"))}
    environment |= {"TRANSFER_LAB_CACHE": str(tmp_path / "cache"), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    stack = [sys.executable, "-m", "pipelines.stack", *options.split()]
    subprocess.run(stack, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run([*stack, "--action", "env"], cwd=ROOT, env=environment, check=True, capture_output=True)
    lines = [line.removeprefix("export ").partition("=") for line in told.stdout.decode().splitlines()]
    environment |= {name: value for name, _, value in lines}
    data = write_colour_images(tmp_path / "data")
    search = f"-m pipelines.search --target {data} --backbone_run random --image_size 16 --study shared --workers 1"
    size = (
        f"--n_way 3 --n_shot 2 --n_query 3 --n_trials {N_TRIALS} --n_episodes 40 --final_episodes 2 --report_episodes 2"
    )
    command = [sys.executable, *search.split(), *size.split(), "--freeze_depth", "0.5", "--steps", "30"]
    workers = [subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) for _ in range(3)]
    wait_for_trials(environment, 3)
    os.killpg(workers[0].pid, signal.SIGKILL)
    assert [worker.wait(600) for worker in workers] == [-signal.SIGKILL, 0, 0]
    # Whoever comes next closes what the killed one has left open; for itself, nothing is left to do.
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    found = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, env=environment, check=True, capture_output=True)
    text = found.stdout.decode()
    assert f"counted {N_TRIALS} lost 1 open 0" in text
    assert "running 0" in text
    assert f"distinct {N_TRIALS}" in text


def wait_for_trials(environment: dict[str, str], n: int) -> None:
    """Until so many trials of the study are running at once."""
    import optuna

    os.environ["PGPASSFILE"] = environment["PGPASSFILE"]
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            study = optuna.load_study(study_name="shared", storage=environment["OPTUNA_STORAGE"])
            if sum(trial.state == optuna.trial.TrialState.RUNNING for trial in study.get_trials(deepcopy=False)) >= n:
                return
        except KeyError:
            pass  # not yet there
        time.sleep(0.2)
    pytest.fail("the workers did not start")
