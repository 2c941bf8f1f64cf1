"""A tracking server that goes away in the middle of 100 episodes: for half a minute, and for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from pipelines.configs.fields import ROOT
from tests.conftest import free_port, write_colour_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

N_EPISODES = 100
AWAY = 30  # seconds
OPTIONS = (
    f"--weights random --image_size 16 --n_way 3 --n_shot 3 --n_query 5 --n_episodes {N_EPISODES} "
    "--freeze_depth 0 --steps 4 --workers 1"
)


@dataclass
class Server:
    """A real MLflow server on loopback that can be killed and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        store = ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        files = ["--artifacts-destination", str(self.folder / "files"), "--workers", "1"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            environment.pop(name, None)
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [*command, *store, *files], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        wait_until(self._answers, 240)

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=1) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except OSError:
            return False


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colour_images(tmp_path / "data", n_per_class=20, size=16)


def environment(folder: Path, store: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_EXPERIMENT")}
    return {**kept, "MLFLOW_TRACKING_URI": store, "TRANSFER_LAB_CACHE": str(folder / "cache"), **more}


def finetune(data: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.finetune", "--target", str(data), *OPTIONS.split()]
    return subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)


def journalled(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in (folder / "cache" / "checkpoints").glob("*.jsonl"))


def losses_of(store: str) -> list[float]:
    """The losses of the one finished finetune run, whose episodes are all there, once; nothing else is open."""
    client = mlflow.MlflowClient(store)
    runs = list(client.search_runs(["0"], max_results=5000))
    assert [run.info.run_name for run in runs if run.info.status == "RUNNING"] == []
    (parent,) = [r for r in runs if r.data.tags["kind"] == "finetune" and r.info.status == "FINISHED"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in children) == [f"episode-{i:04d}" for i in range(N_EPISODES)]
    assert all("query/accuracy" in run.data.metrics and run.info.status == "FINISHED" for run in children)
    path = mlflow.artifacts.download_artifacts(
        run_id=parent.info.run_id, artifact_path="episodes.parquet", tracking_uri=store
    )
    losses: list[float] = pd.read_parquet(path)["loss"].tolist()
    return losses


@pytest.fixture
def undisturbed(data: Path, tmp_path: Path) -> list[float]:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    process = finetune(data, environment(tmp_path / "alone", store))
    assert process.wait() == 0
    return losses_of(store)


def test_a_server_that_is_away_for_half_a_minute_is_waited_for(
    server: Server, data: Path, tmp_path: Path, undisturbed: list[float]
) -> None:
    process = finetune(data, environment(tmp_path, server.address))
    wait_until(lambda: journalled(tmp_path) >= 10, 300)
    server.kill()
    time.sleep(AWAY)
    server.start()
    assert process.wait() == 0
    assert losses_of(server.address) == undisturbed


def test_a_server_that_stays_away_gets_the_results_by_the_same_command(
    server: Server, data: Path, tmp_path: Path, undisturbed: list[float]
) -> None:
    variables = environment(tmp_path, server.address, MLFLOW_HTTP_REQUEST_MAX_RETRIES="2")
    process = finetune(data, variables)
    wait_until(lambda: journalled(tmp_path) >= 10, 300)
    server.kill()
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1] == (
        f"error: the tracking store {server.address} does not answer; "
        "what was computed is kept, and the same command uploads it once the store answers"
    )
    assert journalled(tmp_path) == N_EPISODES
    assert finetune(data, variables).wait() == 2
    assert journalled(tmp_path) == N_EPISODES
    server.start()
    assert finetune(data, variables).wait() == 0
    assert losses_of(server.address) == undisturbed
    assert journalled(tmp_path) == 0
