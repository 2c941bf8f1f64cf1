"""Arguments as MLflow hands them on: whole numbers written as floats, None for what was not set, foreign folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.configs.fields import ROOT, parameters

_UNSET = "None"


def plain_arguments(config_type: type, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with whole numbers written as such, and without options whose value is `None`.

    MLproject has no whole numbers, so that its users write 32.0 and 1e2; and `mlflow.projects.run` turns a value that
    was not set into the word.
    """
    whole = {name for name, kind, _ in parameters(config_type) if kind == "int"}
    return [text for option in _options(arguments) for text in _plain_option(option, whole)]


def _options(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Yield each option with its values: `["--image_size", "32.0"]`, or `["--image_size=32.0"]`."""
    option: list[str] = []
    for text in arguments:
        if text.startswith("--") and option:
            yield option
            option = []
        option.append(text)
    if option:
        yield option


def _plain_option(option: list[str], whole: set[str]) -> list[str]:
    first, *values = option
    name, equals, joined = first.partition("=")
    if equals and not values:
        values = [joined]
    if not name.startswith("--") or len(values) != 1:
        return option
    if values[0] == _UNSET:
        return []
    if name.removeprefix("--").replace("-", "_") not in whole:
        return option
    return [name, _whole_number(values[0])]


def _whole_number(text: str) -> str:
    """Return the digits of a whole number that is written with a point or an exponent; any other text as it is."""
    with suppress(ValueError, OverflowError):
        return text if text.lstrip("+-").isdecimal() or not float(text).is_integer() else str(int(float(text)))
    return text


def enter_callers_folder() -> None:
    """Under `mlflow run`, go to the folder that it was called in: the paths that were given are meant from there.

    MLflow starts a project's command in the project's own folder, which may be a temporary clone.
    """
    if not os.environ.get("MLFLOW_RUN_ID") or Path.cwd() != ROOT:
        return
    import psutil  # which the environment of serving lacks

    with suppress(psutil.Error):
        caller = psutil.Process().parent()
        if caller is not None and Path(caller.name()).name in ("bash", "cmd.exe"):
            caller = caller.parent()
        if caller is not None:
            os.chdir(caller.cwd())
