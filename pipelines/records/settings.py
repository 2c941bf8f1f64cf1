"""The settings of several runs beside each other."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from mlflow.entities import Run

_NAMES = ("name",)  # params that say what a run is called, not what it did


def settings_that_differ(runs: Mapping[str, Run]) -> list[list[str]]:
    """A heading, then one row per param that is not the same in all runs, by the runs' readable names."""
    known = sorted({name for run in runs.values() for name in run.data.params} - set(_NAMES))
    values = {name: [plain_param(run.data.params.get(name, "")) for run in runs.values()] for name in known}
    rows = [[name, *of_runs] for name, of_runs in values.items() if len(set(of_runs)) > 1]
    # A finetune run has its recipe twice: as it was asked for, and under `recipe.` as it was used.
    used = {row[0].removeprefix("recipe.") for row in rows if row[0].startswith("recipe.")}
    return [["setting", *runs], *(row for row in rows if row[0] not in used)]


def plain_param(value: str) -> str:
    """A param as it was meant: `mlflow run` records it in the quotes that it gives it for the shell."""
    parts = shlex.split(value) if value[:1] in ("'", '"') else [value]
    return "".join(parts) if len(parts) < 2 else value
