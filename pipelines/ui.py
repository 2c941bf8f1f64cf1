"""Serve the records on loopback: `python -m pipelines.ui`, or `make ui`."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass

from pipelines.command_line.command import run_command_line
from tl_core.errors import InputError
from tl_core.recipes.checks import check_range


@dataclass(frozen=True, kw_only=True)
class UiConfig:
    """Serve the records on loopback."""

    port: int = 5000
    """Port on 127.0.0.1."""

    def __post_init__(self) -> None:
        check_range("port", self.port, 1, 65535)


def run(config: UiConfig) -> None:
    """Become an MLflow server for the store; never returns."""
    import mlflow

    from pipelines.store.connection import prepare_store

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", config.port))
        except OSError as error:
            raise InputError(f"port {config.port} cannot be used ({error.strerror}); give another port") from error
    prepare_store()
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # starts a job runner that nothing here uses
    print(f"starting; when it says so, open http://127.0.0.1:{config.port} in a browser; stop with Ctrl-C")
    store = ["--backend-store-uri", mlflow.get_tracking_uri()]
    address = ["--host", "127.0.0.1", "--port", str(config.port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *store, *address])  # noqa: S606


if __name__ == "__main__":
    run_command_line(UiConfig, run)
