"""The scores of a finetune run, as what the gate, the card and the tables compare."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from mlflow.entities import Run

from pipelines.episode_log import EPISODES_ARTIFACT
from pipelines.tracking import fetch_artifact, find_run
from registry.gate import Evidence
from tl_core.errors import InputError
from tl_core.scoring import Estimate, estimate


def load_evidence(finetune_run: str) -> Evidence | None:
    """The scores of a finetune run, or None if they cannot be read."""
    try:
        run = find_run(finetune_run, "finetune")
        return Evidence(run.data.tags["episodes"], accuracies(finetune_run))
    except (InputError, KeyError):
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
    if len(set(finetune_runs)) < 2 or len(set(finetune_runs)) < len(finetune_runs):
        raise InputError(f"a comparison needs two or more different finetune runs; given are {len(finetune_runs)}")
    runs = [find_run(run_id, "finetune") for run_id in finetune_runs]
    for run in runs[1:]:
        if run.data.tags["episodes"] != runs[0].data.tags["episodes"]:
            raise InputError(
                f"finetune runs {runs[0].info.run_id} and {run.info.run_id} were scored on different episodes; "
                "give the same target, part, seed and episode shape to both"
            )
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


def describe(finetune_run: Run) -> str:
    """What a registered version says of itself."""
    params = finetune_run.data.params
    result = accuracy_of(finetune_run.info.run_id)
    task = f"{params['n_way']}-way {params['n_shot']}-shot episodes of {params['target']}"
    return f"Accuracy of its recipe on {task}: {result.percent()}, 95 % interval (run {finetune_run.info.run_id})."
