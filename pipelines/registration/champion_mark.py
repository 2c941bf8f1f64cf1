"""Mark of the run that made the champion, for tables of runs: MLflow's has no column for the aliases of a version."""

from __future__ import annotations

import re
from contextlib import suppress

import mlflow
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipelines.registration.version_notes import scored_run_of
from pipelines.store.runs import KIND
from pipelines.store.views import CHAMPION_TAG
from registry.versions import champion_of

_BETWEEN = " / "
"""What stands between the models of one run; no name of a model holds a slash."""


def mark_champion(name: str) -> None:
    """Tag the run that made the champion of a registered model with its name and version, and no other run with it.

    The promotion is made by now: a store that refuses, or a run that is deleted, costs it nothing. The next decision
    about this model sets the mark right.
    """
    with suppress(MlflowException):
        client = mlflow.MlflowClient()
        champion = champion_of(name)
        for run in _marked_runs():  # first, so that an interruption leaves no two
            _set_marks(client, run, _marks_of_others(run, name))
        scored_run = scored_run_of(champion.tags) if champion is not None else ""
        if champion is not None and scored_run:
            run = _row_of(client, client.get_run(scored_run))
            _set_marks(client, run, [*_marks_of_others(run, name), f"{name} v{champion.version}"])


def _marked_runs() -> list[Run]:
    return mlflow.search_runs(
        filter_string=f"tags.{CHAMPION_TAG} LIKE '%'", search_all_experiments=True, output_format="list"
    )


def _marks_of_others(run: Run, name: str) -> list[str]:
    """List the marks of a run but for that of one model."""
    marks = filter(None, run.data.tags.get(CHAMPION_TAG, "").split(_BETWEEN))
    return [mark for mark in marks if not re.fullmatch(rf"{re.escape(name)} v\d+", mark)]


def _set_marks(client: mlflow.MlflowClient, run: Run, marks: list[str]) -> None:
    wanted = _BETWEEN.join(marks)
    if wanted == run.data.tags.get(CHAMPION_TAG, ""):
        return
    if wanted:
        client.set_tag(run.info.run_id, CHAMPION_TAG, wanted)
    else:
        client.delete_tag(run.info.run_id, CHAMPION_TAG)


def _row_of(client: mlflow.MlflowClient, run: Run) -> Run:
    """Return the run in whose row the table shows a score: that of a `main` run hides those of its steps."""
    parent_id = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
    parent = client.get_run(parent_id) if parent_id else run
    is_main = parent.data.tags.get(KIND) == "main" and parent.info.lifecycle_stage == LifecycleStage.ACTIVE
    return parent if is_main else run
