"""Section on the file that is taken away, and the steps of a run that made one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import mlflow
from mlflow.entities import Run

from pipelines.inputs.artifacts import LATENCY_METRIC, ONNX_ARTIFACT, SIZE_METRIC
from pipelines.reports.page import Command, Section, Table
from pipelines.store.artifacts import plain_place
from pipelines.store.params import used_params
from pipelines.store.runs import KIND
from registry.versions import CHALLENGER, CHAMPION


def steps_of(run: Run) -> dict[str, list[Run]]:
    """Return the runs nested in a run, by kind, in the order of the work."""
    wanted = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    steps: dict[str, list[Run]] = {}
    for step in mlflow.MlflowClient().search_runs(
        [run.info.experiment_id], wanted, order_by=["attributes.start_time ASC"]
    ):
        steps.setdefault(step.data.tags[KIND], []).append(step)
    return steps


def classifier_section(steps: Mapping[str, Sequence[Run]], fitted: Run, text: str) -> Section:
    """Say where the file lies, what it needs, and how it is used; `fitted` is the run whose classifier it is."""
    registered, exported = steps["register"][-1], steps["export"][-1]
    name, tags, metrics = used_params(registered)["name"], registered.data.tags, exported.data.metrics
    used = used_params(fitted)
    alias = CHAMPION if tags["promoted"] == "True" else CHALLENGER
    version = f"models:/{name}/{tags['version']}"
    place = plain_place(f"{exported.info.artifact_uri}/{ONNX_ARTIFACT}")
    rows = [
        ["registered as", f"{name}, version {tags['version']}, @{alias}: {tags['gate']}"],
        ["one file", f"{metrics[SIZE_METRIC]:.1f} MB, needs onnxruntime, numpy and Pillow"],
        ["it lies at", place],
        ["backbone", f"{used['backbone']}, images of {used['image_size']} x {used['image_size']} px"],
        ["one image", f"{metrics[LATENCY_METRIC]:.1f} ms from file to prediction, on the machine of the export"],
        ["fitted to", f"{fitted.data.metrics['n_images']:,.0f} images, all that are labelled"],
    ]
    commands = [
        Command(
            "mlflow run . --env-manager local -e predict \\\n"
            f"    -P model={version} -P images=new_photos -P output=predictions.csv"
        ),
        Command(f"python -m serving {shlex.quote(place)} new_photos predictions.csv"),
        Command(f"make page MODEL={shlex.quote(place)}"),
    ]
    sentences = [
        text,
        "The first command below runs where this project is installed. The second needs the file and this project's "
        "folders serving and tl_core beside onnxruntime, numpy and Pillow. The third, in the checkout, opens a page to "
        "try single images.",
        *([] if alias == CHAMPION else ["The gate left the version before it in use, and says below why."]),
    ]
    return Section("Classifier", sentences, [Table("The file to take away", [], rows), *commands])
