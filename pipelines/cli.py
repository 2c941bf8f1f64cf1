"""From the command line to a config, and from an `InputError` to one sentence and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from types import FrameType
from typing import Any, NoReturn, TypeVar

from pipelines.redaction import redact
from tl_core.errors import InputError
from tl_core.files import room_for

Config = TypeVar("Config")

BAD_INPUT = 2


def run_command_line(config_type: type[Config], run: Callable[[Config], object]) -> None:
    """Parse the command line into the config, run the entry point, and turn bad input into exit code 2."""
    signal.signal(signal.SIGTERM, _stop)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Threads that wait by spinning make a step many times slower as soon as another process wants a core; a short
    # spin costs nothing (docs/experiments.md). OpenMP reads this when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line for each of thousands of runs
    try:
        config = parse_config(config_type)
        _quiet_libraries()
        with room_for("a file"):
            run(config)
    except InputError as error:
        print(f"error: {redact(str(error))}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def parse_config(config_type: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """The config that a command line says, by default this process's own."""
    import tyro

    return tyro.cli(config_type, args=arguments, config=_cli_style(), use_underscores=True)


def flat_params(config: Any) -> dict[str, Any]:
    """A config's fields with those of nested configs beside them, as on the command line."""
    params: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        params |= flat_params(value) if is_dataclass(value) else {field.name: value}
    return params


def _cli_style() -> tuple[Any, ...]:
    from tyro.conf import FlagConversionOff, OmitArgPrefixes

    return FlagConversionOff, OmitArgPrefixes


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signal module's interface
    # As an exception, so that the open runs are closed on the way out.
    sys.exit(128 + signum)


def _quiet_libraries() -> None:
    import logging

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("mlflow", "alembic", "optuna", "torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    # A registered model takes images in several forms; MLflow would like to see one.
    warnings.filterwarnings("ignore", message=".*input example was not provided.*")
