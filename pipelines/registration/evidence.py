"""Scores of a finetune or train run, as the gate, the card and the tables compare them."""

from __future__ import annotations

import json

from mlflow.entities import Run

from pipelines.inputs.artifacts import LATENCY_METRIC, SIZE_METRIC
from pipelines.inputs.provenance import check_same_origin
from pipelines.results.predictions import CONFUSIONS_ARTIFACT
from pipelines.results.scores import SCORED_THEMSELVES, NoContentHashesError, image_accuracies
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.find import find_run
from pipelines.store.params import used_params
from pipelines.store.runs import KIND
from registry.gate import Evidence, Measured, Missing, ScoredOn
from tl_core.errors import InputError
from tl_core.export.onnx_file import Parity

SCORED_ON: dict[str, ScoredOn] = {
    "finetune": "episodes",
    "train": "test images",
    "classify": "out-of-fold images",
}
"""What the scores of each kind of run were made on."""


def find_scored_run(export_run: Run, finetune_run: str) -> Run:
    """Return the run that scored what an export run wrote: the one that made it, unless that is a fit run.

    Raises:
        InputError: no such run, one too many or too few, or one that scored something else.
    """
    fitted = find_run(used_params(export_run)["run"], "fit", *SCORED_THEMSELVES)
    name = f"{fitted.data.tags[KIND]} run {fitted.info.run_id}"
    if fitted.data.tags[KIND] in SCORED_THEMSELVES:
        if finetune_run:
            raise InputError(f"{name} was scored on its own images, and not by a finetune run; leave that out")
        return fitted
    if not finetune_run:
        raise InputError(f"{name} kept no image to be scored on; give the finetune_run of this backbone and recipe")
    scored = find_run(finetune_run, "finetune")
    check_same_origin(scored, fitted)
    return scored


def load_evidence(run_id: str) -> Evidence | Missing:
    """Return the scores of a run by image, or why they cannot be compared."""
    try:
        run = find_run(run_id, *SCORED_ON)
        classes: list[str] = json.loads(fetch_artifact(run_id, CONFUSIONS_ARTIFACT).read_text())["class_names"]
        images = image_accuracies(run_id)
        scored_on = SCORED_ON[run.data.tags[KIND]]
        return Evidence(
            accuracies={str(image): float(mean) for image, mean in images["accuracy"].items()},
            class_names=tuple(sorted(classes)),
            scored_on=scored_on,
            task=_say_shape(run.data.tags["episodes"]) if scored_on == "episodes" else "",
            groups={str(image): int(group) for image, group in images["group"].items()},
        )
    except NoContentHashesError:
        return Missing(
            "have no content hashes of their images, as of an earlier release; repeat the run that made them and "
            "register it under another name"
        )
    except (InputError, KeyError, OSError, ValueError):  # the last: pyarrow's, of a damaged table
        return Missing()


def _say_shape(episodes: str) -> str:
    shape = json.loads(episodes)
    return f"{shape['n_way']}-way {shape['n_shot']}-shot"


def measured_of(export_run: Run) -> Measured:
    """Return the measurements that an export run made of its file."""
    metrics = export_run.data.metrics
    holds = None
    if {"parity/max_difference", "parity/equal_argmax", "parity/n_images"} <= metrics.keys():
        similarity = metrics.get("parity/similarity_difference", 0.0)  # files of earlier versions have none
        parity = Parity(
            metrics["parity/max_difference"],
            metrics["parity/equal_argmax"],
            n_images=1,
            similarity_difference=similarity,
        )
        holds = parity.holds and metrics["parity/n_images"] > 0
    return Measured(holds, metrics.get(SIZE_METRIC), metrics.get(LATENCY_METRIC))
