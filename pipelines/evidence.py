"""The scores of a finetune run, as what the gate, the card and the tables compare."""

from __future__ import annotations

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


def accuracy_of(finetune_run: str) -> Estimate:
    """Mean accuracy of a finetune run with its interval."""
    return estimate(list(accuracies(finetune_run).values()))


def describe(finetune_run: Run) -> str:
    """What a registered version says of itself."""
    params = finetune_run.data.params
    result = accuracy_of(finetune_run.info.run_id)
    task = f"{params['n_way']}-way {params['n_shot']}-shot episodes of {params['target']}"
    return f"Accuracy of its recipe on {task}: {result.percent()}, 95 % interval (run {finetune_run.info.run_id})."
