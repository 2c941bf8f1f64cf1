"""Steps say which one begins, of how many, and how long it took the last time."""

from __future__ import annotations

import mlflow
import pytest

from pipelines.command_line.steps import Steps, seconds_of_children, seconds_of_stages

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_a_step_is_counted_and_a_long_one_says_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(3, {1: 0.4, 2: 72.0})
    steps.begin("reading")
    assert steps.run("training", lambda config: config * 2, "ab") == "abab"
    steps.begin("writing")
    assert capsys.readouterr().out.splitlines() == [
        "step 1 of 3: reading",
        "step 2 of 3: training (72 s the last time)",
        "step 3 of 3: writing",
    ]


def finished(data: str, seconds: float, n_children: int = 0) -> None:
    with mlflow.start_run(nested=True):
        mlflow.set_tag("kind", "classify")
        mlflow.log_param("data", data)
        mlflow.log_metric("seconds/folds", seconds)
        for _ in range(n_children):
            mlflow.start_run(nested=True)
            mlflow.end_run()


def test_the_last_run_on_the_same_data_says_how_long_stages_take(store: str) -> None:
    finished("mine", 7.0)
    finished("mine", 8.0)
    finished("other", 9.0)
    with mlflow.start_run():
        assert seconds_of_stages("classify", ["images", "folds"], data="mine") == {2: 8.0}
        assert seconds_of_stages("classify", ["images", "folds"], data="nobody's") == {}


def test_nested_runs_say_it_only_if_there_were_as_many(store: str) -> None:
    finished("mine", 7.0, n_children=2)
    with mlflow.start_run():
        assert list(seconds_of_children("classify", 2, data="mine")) == [1, 2]
        assert seconds_of_children("classify", 3, data="mine") == {}
