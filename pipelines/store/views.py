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
LOCAL_UI = "http://127.0.0.1:5000"

_NOT_PARTS = "tags.kind != 'episode' AND tags.kind != 'trial' AND tags.kind != 'fold'"
_SCORES = tuple(f"metrics.`{name}`" for name in ("accuracy", "accuracy_low", "accuracy_high", "accuracy_ci95"))


@dataclass(frozen=True)
class View:
    """A view: its name in the address, which runs it shows, the columns beside their names, and the order."""

    key: str
    search_filter: str
    columns: tuple[str, ...]
    order_by: str = "attributes.start_time"


_RESULTS = f"metrics.accuracy >= 0 AND tags.kind != 'register' AND {_NOT_PARTS}"  # a version's is that of another run
RESULTS = View("results", _RESULTS, (*_SCORES, "params.`weights`", "tags.`kind`"))
STEPS = View("steps", _NOT_PARTS, ("attributes.`Duration`", "tags.`kind`", *_SCORES))
EVERYTHING = View("everything", "", ("attributes.`Duration`", "tags.`kind`", *_SCORES[:1]))
VIEWS = (RESULTS, STEPS, EVERYTHING)


def save_views(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Save the views that an experiment lacks; people may have changed those that it has."""
    tags = client.get_experiment(experiment_id).tags
    for view in VIEWS:
        if VIEW_TAG + view.key not in tags:
            client.set_experiment_tag(experiment_id, VIEW_TAG + view.key, _as_tag(view))


def runs_address(experiment_id: str, view: View = RESULTS) -> str:
    """Return the address of a view: of the server that is in use, else of `mlflow ui` on its usual port."""
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return ui_address(f"{page}&viewStateShareKey={view.key}")


def run_link(run: Run, artifact: str = "") -> str:
    """Return the address of a run's page, or of one of its artifacts, as MLflow's own pages take it."""
    place = f"/artifacts/{quote(artifact)}" if artifact else ""
    return f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{place}"


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
        "runsExpanded": {},
    }
    now = int(1000 * time.time())
    return json.dumps({"name": view.key, "createdAt": now, "updatedAt": now, "state": json.dumps(state)})
