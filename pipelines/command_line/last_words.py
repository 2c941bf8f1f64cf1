"""Last words of every entry point: its run and its numbers, for people or for machines."""

from __future__ import annotations

import json
import time

import mlflow
from mlflow.entities import Run
from mlflow.utils.file_utils import local_file_uri_to_path

from pipelines.configs.entry_points import REPORT_ARTIFACT
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
    return "\n".join(["", *(f"  {name:<28} {value}" for name, value in {**rows, **_places(run)}.items())])


def _places(run: Run) -> dict[str, str]:
    seconds = time.time() - run.info.start_time / 1000
    places = {"seconds": f"{seconds:.1f}", "run": run.info.run_id}
    if any(artifact.path == REPORT_ARTIFACT for artifact in mlflow.MlflowClient().list_artifacts(run.info.run_id)):
        places["report"] = f"{_for_people(str(run.info.artifact_uri))}/{REPORT_ARTIFACT}"
    return places


def _for_people(place: str) -> str:
    """Return the path of an address of this machine, and any other as it is."""
    return local_file_uri_to_path(place) if place.startswith("file:") else place
