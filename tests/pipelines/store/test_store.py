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

from pipelines.configs.fields import ROOT, flat_params, make_config
from pipelines.finetune import FinetuneConfig
from pipelines.store.connection import _mention_old_store, is_unreachable, prepare_store
from pipelines.store.find import find_run
from pipelines.store.runs import tracked_run
from tests.conftest import free_port, write_colour_images
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@dataclass(frozen=True)
class Knobs:
    rate: float = 1e-3


def test_nested_configs_are_flat_params() -> None:
    params = flat_params(make_config(FinetuneConfig, weights="random"))
    assert params["n_way"] == 0
    assert params["max_lr"] == "auto"
    assert "recipe" not in params


def test_an_experiment_is_described_once_and_in_peoples_own_words_if_they_have_any(store: str) -> None:
    import mlflow

    def described() -> str:
        experiment = mlflow.get_experiment("0")
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

    with pytest.raises(InputError, match=r"does not answer; start it and repeat the command") as failure:
        lose_the_store()
    assert isinstance(failure.value.__cause__, MlflowException)
    assert is_unreachable(failure.value.__cause__)


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
    return {**inherited, **store, "PATH": binaries}


def _statuses(folder: Path) -> list[str]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return sorted(run.info.status for run in client.search_runs(["0"]))


def test_processes_that_start_together_share_a_fresh_store(tmp_path: Path) -> None:
    data = write_colour_images(tmp_path / "data", n_per_class=3)
    command = [sys.executable, "-m", "pipelines.prepare", "--data", str(data), "--image_size", "16"]
    running = [subprocess.Popen(command, cwd=ROOT, env=_environment(tmp_path)) for _ in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert _statuses(tmp_path) == ["FINISHED"] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_process_closes_its_run_and_says_so_without_a_traceback(
    number: signal.Signals, tmp_path: Path
) -> None:
    data = write_colour_images(tmp_path / "data")
    command = [sys.executable, "-m", "pipelines.pretrain", "--source", str(data), "--epochs", "100000"]
    process = subprocess.Popen(
        [*command, "--image_size", "16"],
        cwd=ROOT,
        env=_environment(tmp_path),
        stderr=subprocess.PIPE,
        # A shell's background jobs ignore interrupts, and so would whatever the tests start there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread is forked
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not (tmp_path / "cache" / "images").exists():
        time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Traceback" not in errors
    assert _statuses(tmp_path) == ["KILLED"]


def test_mlflow_run_and_mlflow_ui_share_a_store_without_a_flag_or_a_variable(tmp_path: Path) -> None:
    """Started from another folder than the project's: the store is that of the folder."""
    import mlflow

    write_colour_images(tmp_path / "data", n_per_class=3)
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", "-e", "prepare"]
    # The folder is meant from where the user is, and 16.0 is a whole number.
    parameters = ["-P", "data=data", "-P", "image_size=16.0", "-P", "unreadable=None", "--run-name", "mine"]
    environment = {name: value for name, value in _environment(tmp_path).items() if name != "MLFLOW_TRACKING_URI"}
    subprocess.run([*command, *parameters], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert _statuses(tmp_path) == ["FINISHED"]
    (run,) = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["0"])
    assert run.data.metrics["n_images"] == 9
    assert (run.info.run_name, run.data.params["data"], run.data.params["image_size"]) == ("mine", "data", "16")
    assert run.data.params["unreadable"] == "refuse"
    assert (tmp_path / "mlruns" / "0" / run.info.run_id / "artifacts" / "classes.json").is_file()


def test_a_store_elsewhere_keeps_its_artifacts_elsewhere(tmp_path: Path) -> None:
    data, elsewhere = write_colour_images(tmp_path / "data", n_per_class=3), tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "pipelines.prepare", "--data", str(data), "--image_size", "16"]
    environment = {**_environment(elsewhere), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "elsewhere"}
    assert [path.name for path in elsewhere.rglob("classes.json")] == ["classes.json"]


def test_a_store_of_an_earlier_version_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _mention_old_store()
    assert capsys.readouterr().err == ""
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").touch()
    _mention_old_store()
    assert "MLFLOW_TRACKING_URI=sqlite:///mlruns/mlflow.db" in capsys.readouterr().err
