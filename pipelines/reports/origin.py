"""Cost and origin of a run, and the command that repeats it."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import MISSING
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from pipelines.configs.entry_points import config_type
from pipelines.configs.fields import parameters
from pipelines.inputs.names import short_data
from pipelines.inputs.provenance import NORMALISATION
from pipelines.reports.page import Command, Section, Table, link
from pipelines.reports.words import say_seconds
from pipelines.store.params import given_params, used_params
from pipelines.store.runs import KIND
from pipelines.store.views import run_link, ui_address
from tl_core.networks.weights_spec import credit_of

_COUNTS = {
    "n_episodes": "episodes scored",
    "n_trials": "trials",
    "episodes_spent": "episodes spent on the search",
    "n_images": "images asked",
    "n_train": "images trained on",
    "n_val": "images for validation",
    "n_test": "images of the test part",
}
_RUNS = ("weights", "search_run", "runs")
_LAUNCH = "mlflow run . --env-manager local -e"
_RUN_ID = re.compile("[0-9a-f]{32}")
_WHERE = ("device", "workers", "engine", "address")
"""Params that change where the work is done and not what comes out."""


def title_of(run: Run) -> str:
    """Return the title of a report: the run's kind and name, and its data."""
    name, params = run.data.tags[MLFLOW_RUN_NAME], used_params(run)
    data = short_data(params.get("target") or params.get("data") or params.get("source") or "")
    return name if data in name else f"{name} on {data}"


def cost_section(run: Run, *details: tuple[str, str]) -> Section:
    """Seconds, images and episodes, as they were logged; `details` are further rows."""
    rows = [["time", say_seconds(seconds_of(run))], *map(list, details)]
    rows += [[words, f"{run.data.metrics[name]:,.0f}"] for name, words in _COUNTS.items() if name in run.data.metrics]
    return Section("Cost", [], [Table("What this run took", [], rows)])


def seconds_of(run: Run) -> float:
    """Return the seconds that a run took, or has taken so far."""
    end = run.info.end_time or int(1000 * time.time())
    return float(end - run.info.start_time) / 1000


def origin_section(run: Run, *others: tuple[str, str]) -> Section:
    """The runs and the data that a run came from, and the command that repeats it; `others` are further rows."""
    rows = [[f"this {run.data.tags[KIND]} run", _linked(run.info.run_id, run)]]
    given = {name: used_params(run).get(name, "") for name in _RUNS}
    rows += [
        [name.replace("_", " "), _linked(one, run)]
        for name, value in given.items()
        if value
        for one in value.split(",")
    ]
    rows += [[f"{name} weights", credit] for name in given["weights"].split(",") if (credit := credit_of(name))]
    if normalisation := run.data.tags.get(NORMALISATION):
        rows.append(["pixels are normalised by", normalisation])
    rows += [[words, _linked(value, run)] for words, value in others]
    for used in run.inputs.dataset_inputs if run.inputs else []:
        context = next((tag.value for tag in used.tags if tag.key == "mlflow.data.context"), "data")
        rows.append([f"{context} images", f"{used.dataset.name}, fingerprint {used.dataset.digest[:16]}"])
        if notices := run.data.tags.get(f"{context}_notices"):
            rows.append([f"{context} images, left out or repaired", notices])
    if commit := run.data.tags.get("mlflow.source.git.commit"):
        rows.append(["commit of the code", commit])
    table = Table("Where the numbers come from", [], rows)
    return Section(
        "Origin",
        ["The command below, with the same data and code, repeats this run. Links lead to MLflow's pages."],
        [table, Command(command_of(run))],
    )


def _linked(value: str, here: Run) -> str:
    """A run's id as a link to its page, where it is one and MLflow has the run; any other value as it is."""
    if not _RUN_ID.fullmatch(value):
        return value
    try:
        found = here if value == here.info.run_id else mlflow.get_run(value)
    except MlflowException:  # the run was deleted, say
        return value
    return link(value, ui_address(run_link(found)))


def command_of(run: Run) -> str:
    """The command that repeats a run: what differs from the defaults, quoted for a shell."""
    kind = run.data.tags[KIND]
    params = given_params(run)
    words = [
        f"-P {name}={shlex.quote(params[name])}"
        for name, _, default in parameters(config_type(kind))
        if name in params and name not in _WHERE and not _same(params[name], default)
    ]
    return " \\\n    ".join([f"{_LAUNCH} {kind}", *words])


def _same(value: str, default: Any) -> bool:
    if default is MISSING:
        return False
    try:
        return float(value) == float(default)
    except (TypeError, ValueError):
        return value == str(default)
