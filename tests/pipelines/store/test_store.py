"""The store and its runs: made once, closed always."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from pipelines.configs.fields import ROOT, flat_params
from pipelines.finetune import FinetuneConfig
from pipelines.store.connection import is_away, prepare_store
from pipelines.store.logging import log_params
from pipelines.store.runs import find_run, tracked_run
from tests.conftest import free_port, write_colour_images
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@dataclass(frozen=True)
class Knobs:
    rate: float = 1e-3


def test_nested_configs_are_flat_params() -> None:
    params = flat_params(FinetuneConfig(backbone_run="random"))
    assert params["n_way"] == 0
    assert params["max_lr"] == 1e-2
    assert "recipe" not in params


def test_an_experiment_is_described_once_and_in_peoples_own_words_if_they_have_any(store: str) -> None:
    import mlflow

    def described() -> str:
        experiment = mlflow.get_experiment_by_name("transfer-lab")
        assert experiment is not None
        return str(experiment.tags["mlflow.note.content"])

    prepare_store()
    assert "report.html" in described()
    mlflow.set_experiment_tag("mlflow.note.content", "ours")
    prepare_store()
    assert described() == "ours"


def test_a_store_that_went_away_is_not_taken_for_bad_input_of_a_nested_run(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def lose_the_store() -> None:
        with tracked_run("outer", Knobs()):
            there = mlflow.get_tracking_uri()
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
            try:
                with tracked_run("inner", Knobs()):
                    pass
            finally:
                mlflow.set_tracking_uri(there)

    with pytest.raises(InputError, match=r"does not answer; what was computed is kept") as failure:
        lose_the_store()
    assert isinstance(failure.value.__cause__, MlflowException)
    assert is_away(failure.value.__cause__)


def test_a_run_ends_as_its_work_does(store: str) -> None:
    import mlflow

    with tracked_run("fine", Knobs()) as fine:
        pass
    with pytest.raises(ZeroDivisionError), tracked_run("broken", Knobs()) as broken:
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), tracked_run("stopped", Knobs()) as stopped:
        raise KeyboardInterrupt
    client = mlflow.MlflowClient()
    assert [client.get_run(r).info.status for r in (fine, broken, stopped)] == ["FINISHED", "FAILED", "KILLED"]
    assert client.get_run(broken).data.tags["error"] == "division by zero"


def test_runs_inside_runs_are_nested(store: str) -> None:
    import mlflow

    with tracked_run("outer", Knobs()) as outer, tracked_run("inner", Knobs()) as inner:
        pass
    assert mlflow.MlflowClient().get_run(inner).data.tags["mlflow.parentRunId"] == outer


def test_a_param_that_mlflow_run_spelled_otherwise_is_left_alone(store: str) -> None:
    import mlflow

    with tracked_run("any", Knobs(rate=0.001)) as run_id:
        log_params({"rate": "1e-3", "new": 1})
    assert mlflow.MlflowClient().get_run(run_id).data.params == {"rate": "0.001", "new": "1"}


def test_a_run_that_failed_cannot_be_built_upon(store: str) -> None:
    with pytest.raises(ValueError, match="boom"), tracked_run("fit", Knobs()) as run_id:
        raise ValueError("boom")
    with pytest.raises(InputError, match="FAILED"):
        find_run(run_id, "fit")


def _environment(folder: Path) -> dict[str, str]:
    # No MLFLOW_TRACKING_URI from here: `mlflow run` must pass its own on.
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "TRANSFER_LAB_CACHE": str(folder / "cache")}
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_EXPERIMENT")}
    return {**inherited, **store, "PATH": binaries, "MLFLOW_EXPERIMENT_NAME": "transfer-lab"}


def _statuses(folder: Path) -> list[str]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("transfer-lab")
    assert experiment is not None
    return sorted(run.info.status for run in client.search_runs([experiment.experiment_id]))


def test_processes_that_start_together_share_a_fresh_store(tmp_path: Path) -> None:
    data = write_colour_images(tmp_path / "data", n_per_class=3)
    command = [sys.executable, "-m", "pipelines.prepare", "--data", str(data), "--image_size", "16"]
    running = [subprocess.Popen(command, cwd=ROOT, env=_environment(tmp_path)) for _ in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert _statuses(tmp_path) == ["FINISHED"] * 3


def test_a_terminated_process_closes_its_run(tmp_path: Path) -> None:
    data = write_colour_images(tmp_path / "data")
    command = [sys.executable, "-m", "pipelines.pretrain", "--source", str(data), "--epochs", "100000"]
    process = subprocess.Popen([*command, "--image_size", "16"], cwd=ROOT, env=_environment(tmp_path))
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not (tmp_path / "cache" / "images").exists():
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert _statuses(tmp_path) == ["KILLED"]


def test_mlflow_run_opens_the_run_that_the_entry_point_fills(tmp_path: Path) -> None:
    import mlflow

    data = write_colour_images(tmp_path / "data", n_per_class=3)
    command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", "-e", "prepare"]
    parameters = ["-P", f"data={data}", "-P", "image_size=16"]
    subprocess.run([*command, *parameters], cwd=ROOT, env=_environment(tmp_path), check=True, capture_output=True)
    assert _statuses(tmp_path) == ["FINISHED"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("transfer-lab")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["n_images"] == 9
    assert run.data.params["data"] == str(data)
