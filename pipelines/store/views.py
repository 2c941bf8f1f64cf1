"""Saved views of an experiment in MLflow's UI, and the address of its runs.

MLflow's first page is about language models. The printed address leads to the table of runs, and there to what was
found. A view is a tag of the experiment, in the form that the UI itself writes where one shares a view.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from urllib.parse import quote

import mlflow
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_TRACKING_URI

from pipelines.store.redaction import redact

VIEW_TAG = "mlflow.sharedViewState."
CHAMPION_TAG = "champion"
"""Tag of a run: the registered models whose champion it made, each with its version."""

LOCAL_UI = "http://127.0.0.1:5000"

_OF_RUNS = "workflowType=machine_learning"
"""What has MLflow show the menu of runs and models beside a page, instead of the one about language models."""

_NOT_PARTS = "tags.kind != 'episode' AND tags.kind != 'trial' AND tags.kind != 'fold'"
_ACCURACY, _LOW, _HIGH, _CI95 = (
    f"metrics.`{name}`" for name in ("accuracy", "accuracy_low", "accuracy_high", "accuracy_ci95")
)
_CHAMPION, _KIND, _WEIGHTS = f"tags.`{CHAMPION_TAG}`", "tags.`kind`", "params.`weights`"
_ALWAYS = {"attributes.`Run Name`": 210, "runDateAndNestInfo": 130, "duration": 75}
"""Columns that every table has, and their widths in pixels."""

_WIDTHS = {_ACCURACY: 75, _CHAMPION: 108}
_WIDTH = 97
"""Width of any other column, in pixels: its name is shown whole."""


@dataclass(frozen=True)
class View:
    """A view: its name in the address, which runs it shows, columns from left to right, and the order of the rows.

    A window of usual width shows about five columns, beside MLflow's own panels: what is looked for comes first.
    """

    key: str
    search_filter: str
    columns: tuple[str, ...]
    order_by: str = "attributes.start_time"


_RESULTS = f"metrics.accuracy >= 0 AND tags.kind != 'register' AND {_NOT_PARTS}"  # a version's is that of another run
RESULTS = View("results", _RESULTS, (_ACCURACY, _LOW, _HIGH, _CHAMPION, _KIND, _WEIGHTS, _CI95))
STEPS = View("steps", _NOT_PARTS, (_ACCURACY, _LOW, _HIGH, _CHAMPION, _KIND, _CI95))
EVERYTHING = View("everything", "", (_ACCURACY, _CHAMPION, _KIND))
VIEWS = (RESULTS, STEPS, EVERYTHING)


def save_views(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Save the views that an experiment lacks; people may have changed those that it has."""
    tags = client.get_experiment(experiment_id).tags
    for view in VIEWS:
        if VIEW_TAG + view.key not in tags:
            client.set_experiment_tag(experiment_id, VIEW_TAG + view.key, _as_tag(view))


def runs_address(experiment_id: str, view: View = RESULTS) -> str:
    """Return the address of a view: of the server that is in use, else of `mlflow ui` on its usual port."""
    return ui_address(f"#/experiments/{experiment_id}/runs?{_OF_RUNS}&viewStateShareKey={view.key}")


def run_link(run: Run, artifact: str = "") -> str:
    """Return the address of a run's page, or of one of its artifacts, as MLflow's own pages take it."""
    place = f"/artifacts/{quote(artifact)}" if artifact else ""
    return f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{place}?{_OF_RUNS}"


def ui_address(link: str) -> str:
    """Return a link of MLflow's pages as an address that leads there from elsewhere."""
    uri = os.environ.get(MLFLOW_TRACKING_URI.name, "")
    server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL_UI
    return redact(f"{server}/{link}")


def _as_tag(view: View) -> str:
    state = {
        "searchFilter": view.search_filter,
        "orderByKey": view.order_by,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(view.columns),
        "columnOrder": [*_ALWAYS, *view.columns],
        "columnWidths": _ALWAYS | {column: _WIDTHS.get(column, _WIDTH) for column in view.columns},
        "runsExpanded": {},
    }
    now = int(1000 * time.time())
    return json.dumps({"name": view.key, "createdAt": now, "updatedAt": now, "state": json.dumps(state)})
