"""From the command line to a config, and from an `InputError` to one sentence and exit code 2."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, TypeVar

from pipelines.command_line.arguments import enter_callers_folder, plain_arguments
from pipelines.command_line.streams import lost_output, use_lossy_streams
from pipelines.store.redaction import redact
from tl_core.errors import DataWarning, InputError
from tl_core.files import disk_full_as_input_error

Config = TypeVar("Config")

BAD_INPUT = 2
_MOMENT = 0.05  # seconds


def run_command_line(config_type: type[Config], run: Callable[[Config], object], program: str = "") -> None:
    """Parse the command line into the config, run the entry point, and turn bad input into exit code 2.

    Args:
        program: name of the command in its help; by default that of the module, `python -m pipelines.NAME`.
    """
    signal.signal(signal.SIGTERM, _stop)
    _heed_dropped_stops()
    use_lossy_streams()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Threads that wait by spinning make a step many times slower as soon as another process wants a core; a short
    # spin costs nothing (docs/experiments.md). OpenMP reads this when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line for each of thousands of runs
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    if os.environ.get("NO_COLOR"):  # https://no-color.org, in tyro's spelling
        os.environ.setdefault("PYTHON_TYRO_ANSI_CODES", "False")
    as_json = "--json" in sys.argv  # known even where the rest of the line is at fault
    enter_callers_folder()
    try:
        config = _parse_command_line(config_type, program or f"python -m pipelines.{Path(sys.argv[0]).stem}")
        _quiet_libraries()
        _show_data_warnings()
        with disk_full_as_input_error("a file"):
            run_id = run(config)
    except InputError as error:
        _stop_with(str(error), BAD_INPUT, as_json=as_json)
    except KeyboardInterrupt:
        _stop_with("interrupted", 128 + signal.SIGINT, as_json=as_json)
    if isinstance(run_id, str) and run_id:
        from pipelines.command_line.last_words import conclude

        print(conclude(run_id, as_json=as_json))
    if lost := lost_output():
        print(f"error: all is done, but what was to be printed could not be written ({lost})", file=sys.stderr)
        sys.exit(BAD_INPUT)


def _stop_with(reason: str, code: int, *, as_json: bool) -> NoReturn:
    sentence = redact(reason)
    print(f"error: {sentence}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": sentence}))
    sys.exit(code)


@dataclass(frozen=True, kw_only=True)
class Output:
    """Form of the last words."""

    json: bool = False
    """End with one line of JSON: the run's id, kind and metrics, or the error."""


def _parse_command_line(config_type: type[Config], program: str) -> Config:
    """The config that this process's command line says; beside it, every entry point knows `--json`.

    A config with a static method `more_help` adds that text to its help, which is then also shown without arguments.
    """
    try:
        import tyro
        from tyro.conf import FlagConversionOff, OmitArgPrefixes, arg
    except ModuleNotFoundError as error:  # the first package that every command imports
        raise InputError(
            f"{program} expected the packages of the extra lab, got none of them; install 'transfer-lab[lab]'"
        ) from error

    more_help: Callable[[], str] | None = getattr(config_type, "more_help", None)
    description = "\n\n".join([config_type.__doc__ or "", *([more_help()] if more_help else [])])
    arguments = plain_arguments(config_type, sys.argv[1:]) or (["--help"] if more_help else [])
    # Without names of their own, so that the headings of the help are those of the config's groups.
    config_field: Any = Annotated[config_type, FlagConversionOff, arg(name="")]
    output_field: Any = Annotated[Output, arg(name="")]
    both = make_dataclass(
        "CommandLine",
        [("config", config_field), ("output", output_field, field(default_factory=Output))],
        namespace={"__doc__": description},
    )
    parsed: Any = tyro.cli(both, args=arguments, prog=program, config=(OmitArgPrefixes,), use_underscores=True)
    config: Config = parsed.config
    return config


def parse_config(config_type: type[Config], arguments: Sequence[str]) -> Config:
    """The config that the arguments of a command line say."""
    import tyro
    from tyro.conf import FlagConversionOff, OmitArgPrefixes

    return tyro.cli(config_type, args=arguments, config=(FlagConversionOff, OmitArgPrefixes), use_underscores=True)


def _heed_dropped_stops() -> None:
    """Send a signal once more whose exception was raised in a finaliser or a callback, where Python drops it."""
    show_others = sys.unraisablehook

    def heed(dropped: sys.UnraisableHookArgs) -> None:
        kinds = {SystemExit: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}
        if dropped.exc_type not in kinds:
            show_others(dropped)
            return
        # From another thread and a moment later: raised in here it would be dropped again.
        again = threading.Timer(_MOMENT, os.kill, (os.getpid(), kinds[dropped.exc_type]))
        again.daemon = True
        again.start()

    sys.unraisablehook = heed


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signal module's interface
    # As an exception, so that the open runs are closed on the way out.
    sys.exit(128 + signum)


def _quiet_libraries() -> None:
    import logging

    # What it says of an error of the store, with a traceback, is said in a sentence at the end.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    for name in ("mlflow", "alembic", "torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    # A registered model takes images in several forms; MLflow would like to see one.
    warnings.filterwarnings("ignore", message=".*input example was not provided.*")


def _show_data_warnings() -> None:
    """Print warnings that are meant for users as a sentence without a place in the code, each of them once."""
    show_others, shown = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, DataWarning):
            show_others(message, category, *where, **more)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"warning: {redact(str(message))}", file=sys.stderr)

    warnings.showwarning = show
