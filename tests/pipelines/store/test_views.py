"""Saved views of MLflow's UI."""

from __future__ import annotations

import json

import mlflow
import pytest

from pipelines.store.connection import prepare_store
from pipelines.store.views import EVERYTHING, RESULTS, STEPS, VIEW_TAG, VIEWS, View, run_link, runs_address

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def log_run(kind: str, **metrics: float) -> None:
    with mlflow.start_run(run_name=kind):
        mlflow.set_tag("kind", kind)
        mlflow.log_metrics(metrics)


def test_each_view_shows_what_its_name_says() -> None:
    prepare_store()
    for kind in ("finetune", "episode", "trial", "fold", "register"):
        log_run(kind, accuracy=0.5)
    log_run("export", megabytes=1.0)
    found = {
        view.key: {run.info.run_name for run in mlflow.MlflowClient().search_runs(["0"], view.search_filter)}
        for view in VIEWS
    }
    everything = {"finetune", "episode", "trial", "fold", "export", "register"}
    assert found == {
        RESULTS.key: {"finetune"},
        STEPS.key: {"finetune", "export", "register"},
        EVERYTHING.key: everything,
    }


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.key)
def test_the_champion_is_within_the_width_of_a_usual_window(view: View) -> None:
    prepare_store()
    tag = json.loads(mlflow.MlflowClient().get_experiment("0").tags[VIEW_TAG + view.key])
    state = json.loads(tag["state"])
    order, widths = state["columnOrder"], state["columnWidths"]
    assert set(state["selectedColumns"]) < set(order) == set(widths)
    until = order.index("tags.`champion`") + 1
    beside_the_panels = 865 - 73  # pixels that MLflow's page of 1500 leaves, and those of the boxes to tick
    assert sum(widths[column] for column in order[:until]) <= beside_the_panels


def test_the_address_of_a_run_opens_the_menu_of_runs() -> None:
    with mlflow.start_run() as run:
        pass
    page = f"#/experiments/0/runs/{run.info.run_id}"
    assert run_link(run) == f"{page}?workflowType=machine_learning"
    assert run_link(run, "a b.html") == f"{page}/artifacts/a%20b.html?workflowType=machine_learning"


def test_views_are_saved_once_and_those_that_people_changed_stay() -> None:
    prepare_store()
    client = mlflow.MlflowClient()
    saved = json.loads(client.get_experiment("0").tags[VIEW_TAG + RESULTS.key])
    assert json.loads(saved["state"])["searchFilter"] == RESULTS.search_filter
    client.set_experiment_tag("0", VIEW_TAG + RESULTS.key, "mine")
    prepare_store()
    assert client.get_experiment("0").tags[VIEW_TAG + RESULTS.key] == "mine"


def test_the_address_is_that_of_the_server_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=results"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    assert runs_address("7") == f"http://127.0.0.1:5000{page}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:secret@lab.example:5001/")
    assert runs_address("7") == f"https://ann:***@lab.example:5001{page}"
