"""Runs in one table are named by what differs between them."""

from __future__ import annotations

import mlflow
import pytest
from mlflow.entities import Run

from pipelines.results.comparable import tell_apart

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def logged(**params: str) -> Run:
    with mlflow.start_run() as run:
        mlflow.log_params(params)
    return mlflow.MlflowClient().get_run(run.info.run_id)


@pytest.fixture
def runs(store: str) -> list[Run]:
    return [logged(l2="0.1", seed="0"), logged(l2="0.2", seed="0"), logged(l2="0.1", seed="0", weights="f" * 32)]


def test_different_names_stay(runs: list[Run]) -> None:
    assert tell_apart(["a", "b", "c"], runs) == ["a", "b", "c"]


def test_runs_of_one_name_are_called_by_their_settings_alone(runs: list[Run]) -> None:
    assert tell_apart(["a", "a"], runs[:2]) == ["l2 0.1", "l2 0.2"]


def test_beside_others_a_name_stays_before_the_settings(runs: list[Run]) -> None:
    assert tell_apart(["a", "a", "b"], runs) == ["a, l2 0.1", "a, l2 0.2", "b"]


def test_of_a_run_that_others_start_from_the_first_digits_are_named(runs: list[Run]) -> None:
    assert tell_apart(["a", "a"], [runs[0], runs[2]]) == ["weights ", "weights ffffffff"]


def test_runs_of_the_same_settings_are_told_apart_by_their_ids(runs: list[Run]) -> None:
    again = logged(l2="0.1", seed="0")
    assert tell_apart(["a", "a"], [runs[0], again]) == [f"a ({run.info.run_id[:8]})" for run in (runs[0], again)]
