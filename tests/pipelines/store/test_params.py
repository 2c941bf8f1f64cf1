"""Params say what was used, under one name each."""

from __future__ import annotations

from dataclasses import dataclass

import mlflow
import pytest

from pipelines.store.params import log_params, used_params
from pipelines.store.runs import rename_run, tracked_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@dataclass(frozen=True)
class Settings:
    rate: str = "auto"
    size: int = 0
    data: str = "my folder"


def params_of(run_id: str) -> dict[str, str]:
    return dict(mlflow.MlflowClient().get_run(run_id).data.params)


def test_params_are_the_values_that_were_used_and_else_those_of_the_config(store: str) -> None:
    with tracked_run("any", Settings()) as run_id:
        log_params({"rate": 0.001, "size": 64})
    assert params_of(run_id) == {"rate": "0.001", "size": "64", "data": "my folder"}


def test_a_run_that_fails_has_its_params_too(store: str) -> None:
    with pytest.raises(ZeroDivisionError), tracked_run("any", Settings()) as run_id:
        _ = 1 / 0
    assert params_of(run_id) == {"rate": "auto", "size": "0", "data": "my folder"}


def test_what_mlflow_run_logged_as_it_was_typed_is_replaced_by_what_was_used(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow.MlflowClient()
    typed = client.create_run("0").info.run_id
    for name, value in {"rate": "auto", "size": "0", "data": "'my folder'"}.items():
        client.log_param(typed, name, value)
    monkeypatch.setenv("MLFLOW_RUN_ID", typed)
    with tracked_run("any", Settings()) as run_id:
        log_params({"rate": 0.001, "size": 64})
    assert run_id == typed
    assert params_of(run_id) == {"rate": "0.001", "size": "64", "data": "my folder"}


def test_used_values_that_a_server_keeps_beside_the_typed_ones_are_read(store: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_params({"rate": "auto", "used.rate": "0.001", "data": "'my folder'"})
    assert used_params(mlflow.MlflowClient().get_run(run.info.run_id)) == {"rate": "0.001", "data": "my folder"}


@pytest.mark.parametrize(("given", "shown"), [("my name", "my name"), ("a-b-1", "a-b-1"), ("bright-ant-12", "any")])
def test_a_name_that_the_user_gave_stays_and_one_by_chance_does_not(
    given: str, shown: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = mlflow.MlflowClient().create_run("0", run_name=given)
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    with tracked_run("any", Settings()) as run_id, tracked_run("inner", Settings(), "step") as step:
        pass
    client = mlflow.MlflowClient()
    assert [client.get_run(one).info.run_name for one in (run_id, step)] == [shown, "step"]


def test_a_run_gets_a_better_name_unless_its_user_named_it(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow.MlflowClient()
    with tracked_run("any", Settings(), "any from last") as run_id:
        rename_run("any from last", "any from 0a1b2c3d")
    monkeypatch.setenv("MLFLOW_RUN_NAME", "mine")
    with tracked_run("any", Settings(), "any from last") as named:
        rename_run("any from last", "any from 0a1b2c3d")
    assert [client.get_run(one).info.run_name for one in (run_id, named)] == ["any from 0a1b2c3d", "mine"]


def test_a_name_is_no_longer_than_a_store_takes(store: str) -> None:
    with tracked_run("any", Settings(), "any " + 300 * "x") as run_id:
        rename_run("any " + 300 * "x", "any " + 300 * "y")
    name = mlflow.MlflowClient().get_run(run_id).info.run_name
    assert name == "any " + 196 * "y"
