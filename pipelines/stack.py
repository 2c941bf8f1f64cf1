"""Records on servers: PostgreSQL, an MLflow server and optuna-dashboard on loopback, as ordinary processes.

    python -m pipelines.stack                       start what is not running, and say where it is
    python -m pipelines.stack --action down         stop them; the data stay
    eval "$(python -m pipelines.stack --action env)"

Everything lies in one folder: the data, the logs, the numbers of the processes and the password file. The address of a
database holds no password; PGPASSFILE names the file that does.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.command_line.command import run_command_line
from tl_core.errors import InputError
from tl_core.recipes.checks import check_range

USER, DATABASES = "transfer_lab", ("mlflow", "optuna")
LOOPBACK = "127.0.0.1"
_PATIENCE = 180  # seconds; a first start makes the tables


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """Records on servers: PostgreSQL, an MLflow server and optuna-dashboard on loopback."""

    action: Literal["up", "down", "env"] = "up"
    """Start them, stop them, or print the variables that say where they are."""
    folder: str = ""
    """Where data and logs lie; by default `mlruns/stack` of the checkout."""
    postgres_port: int = 5433
    """Port of PostgreSQL."""
    mlflow_port: int = 5000
    """Port of the MLflow server."""
    dashboard_port: int = 8080
    """Port of optuna-dashboard."""

    def __post_init__(self) -> None:
        for name in ("postgres_port", "mlflow_port", "dashboard_port"):
            check_range(name, getattr(self, name), 1, 65535)

    @property
    def root(self) -> Path:
        """The folder, as a path."""
        return Path(self.folder).resolve() if self.folder else Path(__file__).resolve().parents[1] / "mlruns" / "stack"

    def variables(self) -> dict[str, str]:
        """What a process must have in its environment to keep its records here."""
        return {
            "MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{self.mlflow_port}",
            "OPTUNA_STORAGE": self.address("optuna"),
            "PGPASSFILE": str(self.root / "pgpass"),
        }

    def address(self, database: str) -> str:
        """The address of a database, without the password."""
        return f"postgresql+psycopg://{USER}@{LOOPBACK}:{self.postgres_port}/{database}"


def run(config: StackConfig) -> None:
    """Start, stop, or print.

    Raises:
        InputError: PostgreSQL or the extra is not installed, or something does not start; its log says why.
    """
    if config.action == "up":
        _start(config)
    if config.action == "down":
        _stop(config)
    else:
        print("\n".join(f"export {name}={value}" for name, value in config.variables().items()))


def _start(config: StackConfig) -> None:
    if not shutil.which("optuna-dashboard", path=_path()):
        raise InputError("the stack needs psycopg and optuna-dashboard; install transfer-lab[postgres]")
    (config.root / "logs").mkdir(parents=True, exist_ok=True)
    _start_postgres(config)
    server = ["-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(config.mlflow_port), "--workers", "1"]
    files = ["--backend-store-uri", config.address("mlflow"), "--artifacts-destination", str(config.root / "artifacts")]
    _start_process(
        config, "mlflow", [sys.executable, *server, *files], f"http://{LOOPBACK}:{config.mlflow_port}/health"
    )
    # The dashboard looks for the studies' tables and does not make them.
    tables = "import optuna, sys; optuna.storages.RDBStorage(sys.argv[1])"
    _checked(config, [sys.executable, "-c", tables, config.address("optuna")])
    page = ["--host", LOOPBACK, "--port", str(config.dashboard_port)]
    dashboard = [str(shutil.which("optuna-dashboard", path=_path())), config.address("optuna"), *page]
    _start_process(config, "dashboard", dashboard, f"http://{LOOPBACK}:{config.dashboard_port}/")


def _stop(config: StackConfig) -> None:
    for name in ("dashboard", "mlflow"):
        process = _running(config, name)
        if process is not None:
            for child in [*process.children(recursive=True), process]:
                with suppress(Exception):  # gone already
                    child.terminate()
            process.wait(30)
    if (config.root / "postgres" / "postmaster.pid").exists():
        _postgres(config, "pg_ctl", "-D", str(config.root / "postgres"), "-m", "fast", "-w", "stop")


def _start_postgres(config: StackConfig) -> None:
    data, passwords = config.root / "postgres", config.root / "pgpass"
    if not (data / "PG_VERSION").exists():
        password = secrets.token_urlsafe(24)
        passwords.touch(mode=0o600)
        passwords.write_text(f"*:*:*:{USER}:{password}\n")
        data.mkdir(exist_ok=True)
        first = data.with_name("password")
        first.touch(mode=0o600)
        first.write_text(password)
        _give_to_postgres(data, first)
        _postgres(config, "initdb", "-D", str(data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={first}")
        first.unlink()
    if not _answers_postgres(config):
        sockets = f"-c listen_addresses={LOOPBACK} -c unix_socket_directories='' -p {config.postgres_port}"
        _postgres(config, "pg_ctl", "-D", str(data), "-l", str(data / "log"), "-o", sockets, "-w", "start")
    where = ["-h", LOOPBACK, "-p", str(config.postgres_port), "-U", USER]
    known = _checked(config, _program("psql", *where, "-d", "postgres", "-tAc", "select datname from pg_database"))
    for name in set(DATABASES) - set(known.split()):
        _checked(config, _program("createdb", *where, name))


def _answers_postgres(config: StackConfig) -> bool:
    command = _program("pg_isready", "-q", "-h", LOOPBACK, "-p", str(config.postgres_port))
    return subprocess.run(command, check=False).returncode == 0


def _postgres(config: StackConfig, name: str, *arguments: str) -> None:
    _checked(config, [*_as_postgres(), *_program(name, *arguments)])


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root; its packages bring a user for it."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


def _give_to_postgres(*paths: Path) -> None:
    if os.geteuid() == 0:
        for path in paths:
            shutil.chown(path, "postgres", "postgres")


def _program(name: str, *arguments: str) -> list[str]:
    """One of PostgreSQL's programs, which Debian keeps off the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = shutil.which(name) or next(map(str, reversed(versions)), None)
    if found is None:
        raise InputError(f"PostgreSQL's {name} is not installed (Debian: postgresql); or use compose.yaml")
    return [found, *arguments]


def _checked(config: StackConfig, command: list[str]) -> str:
    log = config.root / "logs" / "postgres.log"
    environment = {**os.environ, **config.variables()}
    # What is started keeps what it inherits open: not a pipe, or nobody would ever read its end.
    with log.open("ab") as errors, (config.root / "logs" / "answer").open("w+b") as answer:
        done = subprocess.run(command, cwd="/", env=environment, stdout=answer, stderr=errors, check=False)
        answer.seek(0)
        text = answer.read().decode()
    if done.returncode:
        raise InputError(f"{' '.join(command)} failed; {log} says why")
    return text


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _start_process(config: StackConfig, name: str, command: list[str], page: str) -> None:
    if _running(config, name) is not None:
        return
    if _answers(page):
        raise InputError(f"something else answers at {page}; give another port")
    log = config.root / "logs" / f"{name}.log"
    environment = {**os.environ, **config.variables(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    del environment["MLFLOW_TRACKING_URI"]  # the server would ask itself
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    (config.root / f"{name}.pid").write_text(str(process.pid))
    deadline = time.monotonic() + _PATIENCE
    while not _answers(page):
        if process.poll() is not None or time.monotonic() > deadline:
            raise InputError(f"{name} does not answer at {page}; {log} says why")
        time.sleep(0.2)


def _answers(page: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(page, timeout=2) as answer:  # noqa: S310 - on loopback
        return bool(answer.status == 200)
    return False


def _running(config: StackConfig, name: str) -> Any:
    """The process that an earlier call has started, if it still runs."""
    import psutil

    with suppress(OSError, ValueError, psutil.NoSuchProcess):
        process = psutil.Process(int((config.root / f"{name}.pid").read_text()))
        # A number may have become another process's.
        if name in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


if __name__ == "__main__":
    run_command_line(StackConfig, run)
