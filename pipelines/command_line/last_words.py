"""Last words of every entry point: its run and its numbers, for people or for machines."""

from __future__ import annotations

import json
import time

import mlflow
from mlflow.entities import Run

from pipelines.configs.entry_points import REPORT_ARTIFACT
from pipelines.store.artifacts import short_place
from pipelines.store.runs import KIND

_CURVES = ("train/", "val/loss", "val/accuracy", "episode/", "system/")
_TOLD = ("summary/", "shots/")  # by `main` itself, as tables


def conclude(run_id: str, *, as_json: bool) -> str:
    """A table of a finished run, or one line of JSON with its id, kind, metrics and artifacts' place."""
    run = mlflow.MlflowClient().get_run(run_id)
    metrics = {name: value for name, value in sorted(run.data.metrics.items()) if not name.startswith(_CURVES)}
    if as_json:
        kind, place = run.data.tags[KIND], run.info.artifact_uri
        return json.dumps({"run_id": run_id, "kind": kind, "metrics": metrics, "artifacts": place})
    rows = {name: f"{value:.6g}" for name, value in metrics.items() if not name.startswith(_TOLD)}
    places = [f"  {name:<8} {value}" for name, value in _places(run).items()]
    return "\n".join(["", *places, "", *(f"  {name:<28} {value}" for name, value in rows.items())]).rstrip()


def _places(run: Run) -> dict[str, str]:
    """Return where the report lies, before all numbers, and the run."""
    seconds = time.time() - run.info.start_time / 1000
    places = {"run": run.info.run_id, "seconds": f"{seconds:.1f}"}
    if any(artifact.path == REPORT_ARTIFACT for artifact in mlflow.MlflowClient().list_artifacts(run.info.run_id)):
        places = {"report": short_place(f"{run.info.artifact_uri}/{REPORT_ARTIFACT}"), **places}
    return places
