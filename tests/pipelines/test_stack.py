"""README's "Growing out of one machine", line by line, on a PostgreSQL of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from pipelines.stack import StackConfig

from pipelines.command_line.mlproject import locked_versions
from pipelines.configs.fields import ROOT
from tl_core.errors import InputError

SECTION = "## Growing out of one machine"

installed = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")
needs_postgres = [
    pytest.mark.postgres,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not installed, reason="PostgreSQL is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="the extra postgres is not installed"),
]


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@pytest.fixture
def options() -> Iterator[str]:
    """The stack's own folder and ports, as options; whatever is up is taken down in the end."""
    postgres, server, dashboard = free_ports(3)
    # Not below pytest's folder: only its owner may enter that, and PostgreSQL runs as another user.
    folder = Path(f"/var/tmp/transfer-lab-{os.getpid()}")
    ports = f"--postgres_port {postgres} --mlflow_port {server} --dashboard_port {dashboard}"
    options = f"--folder {folder} {ports}"
    yield options
    down = f"{sys.executable} -m pipelines.stack --action down {options}"
    subprocess.run(down.split(), cwd=ROOT, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def commands_of_the_readme() -> str:
    text = (ROOT / "README.md").read_text().split(SECTION)[1].split("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return str(block)


class TestReadme:
    pytestmark = needs_postgres

    def test_its_commands_work(self, options: str, tmp_path: Path) -> None:
        lines = commands_of_the_readme().replace("-m pipelines.stack", f"-m pipelines.stack {options}")
        if importlib.util.find_spec("ray") is None:
            lines = lines.replace("--engine ray", "")
        # Between the last two lines, while the servers are up.
        *work, down = lines.strip().splitlines()
        look = (
            "import mlflow, optuna, os; "
            "runs = mlflow.search_runs(search_all_experiments=True, output_format='list'); "
            "kinds = [run.data.tags['kind'] for run in runs]; "
            "print('kinds', sorted(set(kinds)), kinds.count('episode'));"
            "print('trials', len(optuna.load_study(study_name='shared', storage=os.environ['OPTUNA_STORAGE']).trials))"
        )
        script = "\n".join(["set -e", *work, f'python -c "{look}"', down])
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "OPTUNA_"))}
        environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"TRANSFER_LAB_CACHE": str(tmp_path / "cache"), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "kinds ['episode', 'finetune', 'search', 'trial'] 8" in done.stdout
        assert "trials 4" in done.stdout
        folder = Path(options.split()[1])
        password = (folder / "pgpass").read_text().strip().rpartition(":")[2]
        assert (folder / "pgpass").stat().st_mode & 0o77 == 0
        assert password not in done.stdout + done.stderr
        assert password not in "".join(path.read_text() for path in (folder / "logs").iterdir())


def test_addresses_hold_no_password() -> None:
    assert StackConfig().variables()["OPTUNA_STORAGE"] == "postgresql+psycopg://transfer_lab@127.0.0.1:5433/optuna"


def test_without_the_extra_the_stack_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipelines import stack

    monkeypatch.setattr(stack, "_path", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"install transfer-lab\[postgres\]"):
        stack.run(StackConfig(folder=str(tmp_path / "stack")))


def test_compose_binds_loopback_and_pins_what_the_lock_pins() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    assert f"mlflow=={locked_versions()['mlflow']}" in services["mlflow"]["command"]
    assert all(":?" in value for s in services.values() for k, value in s["environment"].items() if "PASSWORD" in k)


def test_the_extras_are_what_the_messages_say() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"ray", "dask", "postgres"} <= extras.keys()
