"""The servers of docs/scaling.md and the commands on them, as the page has them, but on free ports."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from pipelines.command_line.mlproject import locked_versions
from pipelines.configs.fields import ROOT
from tests.conftest import free_port

BIN = Path(sys.executable).parent
PORTS = ("5433", "5000", "8080")
"""PostgreSQL, MLflow and the dashboard on the pages."""

installed = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")
needs_postgres = [
    pytest.mark.postgres,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not installed, reason="PostgreSQL is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="the extra postgres is not installed"),
]


def blocks(page: str, section: str) -> list[str]:
    """The shell blocks of a section."""
    text = (ROOT / page).read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def moved(commands: str, ports: dict[str, str]) -> str:
    """The commands with free ports in place of the page's."""
    return re.sub(r"\b(5433|5000|8080)\b", lambda port: ports[port[0]], commands)


def own_environment(home: Path) -> dict[str, str]:
    """This process's variables without those that say where records are, and another home."""
    kept = {name: value for name, value in os.environ.items() if not re.match("MLFLOW_|OPTUNA_|PG|PYTHON", name)}
    return kept | {"HOME": str(home), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}


def answers(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:  # noqa: S310 - on loopback
        return bool(answer.status == 200)
    return False


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that the user of PostgreSQL may enter too, unlike what is below pytest's folder."""
    folder = Path(f"/var/tmp/transfer-lab-{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ports() -> dict[str, str]:
    """A free port for each of the page's."""
    return {port: str(free_port()) for port in PORTS}


@pytest.fixture
def servers(home: Path, ports: dict[str, str]) -> Iterator[dict[str, str]]:
    """The page's servers, started and stopped by its commands; yields the variables that a client needs."""
    start, stop = (moved(block, ports) for block in blocks("docs/scaling.md", "Servers"))
    log = home.with_suffix(".log")
    with log.open("w") as output:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", f"{start}\necho started\nread -r _\n{stop}"],
            cwd=home,
            env=own_environment(home),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 300
        pages = [f"http://127.0.0.1:{ports['5000']}/health", f"http://127.0.0.1:{ports['8080']}/"]
        while not all(map(answers, pages)):
            assert shell.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "".join(path.read_text() for path in home.rglob("*.log"))
            time.sleep(0.5)
        yield own_environment(home) | {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['5000']}",
            "OPTUNA_STORAGE": f"postgresql+psycopg://transfer_lab@127.0.0.1:{ports['5433']}/optuna",
            "PGPASSFILE": str(home / "servers" / "pgpass"),
        }
    finally:
        with suppress(subprocess.TimeoutExpired, BrokenPipeError):
            shell.communicate(b"\n", timeout=60)
        with suppress(ProcessLookupError):  # whatever is left of the session
            os.killpg(shell.pid, signal.SIGKILL)
        log.unlink()


LOOK = """
import mlflow, optuna, os
runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
kinds = [run.data.tags["kind"] for run in runs]
print("kinds", sorted(set(kinds)), kinds.count("episode"))
print("trials", len(optuna.load_study(study_name="shared", storage=os.environ["OPTUNA_STORAGE"]).trials))
"""


class TestServers:
    pytestmark = needs_postgres

    def test_the_commands_of_the_page_keep_their_records_there(
        self, servers: dict[str, str], home: Path, ports: dict[str, str], tmp_path: Path
    ) -> None:
        (commands,) = blocks("docs/scaling.md", "Commands on the servers")
        if importlib.util.find_spec("ray") is None:
            commands = commands.replace("--engine ray", "")
        (tmp_path / "look.py").write_text(LOOK)
        environment = own_environment(home) | {"TRANSFER_LAB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
        script = f"{moved(commands, ports)}\npython look.py"
        command = ["bash", "-e", "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "kinds ['episode', 'finetune', 'search', 'trial'] 8" in done.stdout
        assert "trials 4" in done.stdout
        password = (home / "servers" / "password").read_text().strip()
        assert all((home / "servers" / name).stat().st_mode & 0o77 == 0 for name in ("password", "pgpass"))
        assert password not in done.stdout + done.stderr
        assert password not in "".join(path.read_text() for path in home.rglob("*.log"))


def test_every_server_of_the_page_is_on_loopback_and_no_command_holds_a_password() -> None:
    start, _ = blocks("docs/scaling.md", "Servers")
    assert "PGHOST=127.0.0.1" in start
    assert "0.0.0.0" not in start  # noqa: S104 - its absence
    assert not re.search(r"://\w+:\w+@|PGPASSWORD|--password", start)
    assert len([line for line in start.partition("\n\n")[2].splitlines() if line]) == 5


def test_compose_binds_loopback_and_pins_what_the_lock_pins() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    assert f"mlflow=={locked_versions()['mlflow']}" in services["mlflow"]["command"]
    assert all(":?" in value for s in services.values() for k, value in s["environment"].items() if "PASSWORD" in k)


def test_the_extras_are_what_the_messages_say() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"lab", "serving", "ray", "dask", "postgres"} <= extras.keys()
