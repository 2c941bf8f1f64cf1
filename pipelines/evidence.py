"""The scores of a finetune run, or of a train run, as what the gate, the card and the tables compare."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from mlflow.entities import Run

from pipelines.episode_log import EPISODES_ARTIFACT
from pipelines.export import LATENCY_METRIC, SIZE_METRIC
from pipelines.provenance import check_same_origin
from pipelines.tracking import KIND, fetch_artifact, find_comparable_runs, find_run
from pipelines.train_log import fingerprint_of
from pipelines.trainings import hits_in, predictions_of
from registry.gate import Evidence, Measured
from tl_core.errors import InputError
from tl_core.export import Parity
from tl_core.scoring import Estimate, estimate


def find_scored_run(export_run: Run, finetune_run: str) -> Run:
    """The run that scored what an export run wrote: a train run scored itself, a fit run needs a finetune run.

    Raises:
        InputError: no such run, one too many or too few, or one that scored something else.
    """
    fitted = find_run(export_run.data.params["fit_run"], "fit", "train")
    name = f"{fitted.data.tags[KIND]} run {fitted.info.run_id}"
    if fitted.data.tags[KIND] == "train":
        if finetune_run:
            raise InputError(f"{name} was scored on its own test images, and not by a finetune run; leave that out")
        return fitted
    if not finetune_run:
        raise InputError(f"{name} kept no image to be scored on; give the finetune_run of this backbone and recipe")
    scored = find_run(finetune_run, "finetune")
    check_same_origin(scored, fitted)
    return scored


def load_evidence(run_id: str) -> Evidence | None:
    """The scores of a finetune or train run, or None if they cannot be read."""
    try:
        run = find_run(run_id, "finetune", "train")
        if run.data.tags[KIND] == "finetune":
            return Evidence(run.data.tags["episodes"], accuracies(run_id))
        table = predictions_of(run_id)
        # Of the table itself, not the run's tag: what is compared is what is there.
        sample = fingerprint_of(table["label"], table["content_hash"])
        return Evidence(sample, dict(enumerate(hits_in(table).astype(float).tolist())), "test images")
    except (InputError, KeyError, OSError, ValueError):  # the last: pyarrow's, of a damaged table
        return None


def accuracies(finetune_run: str) -> dict[int, float]:
    """Accuracy by episode number."""
    table = pd.read_parquet(fetch_artifact(finetune_run, EPISODES_ARTIFACT))
    return {int(e): float(a) for e, a in zip(table["episode"], table["accuracy"], strict=True)}


def paired_accuracies(finetune_runs: Sequence[str]) -> dict[str, list[float]]:
    """Accuracies of several finetune runs on the episodes that all of them scored, in one order, by readable name.

    Raises:
        InputError: fewer than two runs, the same run twice, or runs whose episodes are not the same.
    """
    advice = "give the same target, part, seed and episode shape to both"
    runs = find_comparable_runs(finetune_runs, "finetune", "episodes", "episodes", advice)
    tables = [accuracies(run.info.run_id) for run in runs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    names = [_readable(run) for run in runs]
    return {name: [table[e] for e in shared] for name, table in zip(names, tables, strict=True)}


def _readable(run: Run) -> str:
    apart = "" if run.data.tags.get("transductive", "none") == "none" else ", transductive"
    return f"{run.data.tags['network'][:12]} ({run.info.run_id[:8]}{apart})"


def accuracy_of(finetune_run: str) -> Estimate:
    """Mean accuracy of a finetune run with its interval."""
    return estimate(list(accuracies(finetune_run).values()))


def measured_of(export_run: Run) -> Measured:
    """What an export run found out about its file."""
    metrics = export_run.data.metrics
    holds = None
    if {"parity/max_difference", "parity/equal_argmax", "parity/n_images"} <= metrics.keys():
        parity = Parity(metrics["parity/max_difference"], metrics["parity/equal_argmax"], 1)
        holds = parity.holds and metrics["parity/n_images"] > 0
    return Measured(holds, metrics.get(SIZE_METRIC), metrics.get(LATENCY_METRIC))
