"""The scores of finetune runs, read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from mlflow.entities import Run

from pipelines.inputs.names import short_network
from pipelines.results.comparable import find_comparable_runs
from pipelines.store.artifacts import fetch_artifact
from tl_core.scoring.episodes import Estimate, estimate

EPISODES_ARTIFACT = "episodes.parquet"
METHODS_ARTIFACT = "methods.json"
"""Of a main run: its finetune runs by method."""
SHOTS_ARTIFACT = "shots.json"
"""Of a main run: its finetune runs by number of support images per class."""

COMPARED = (
    ("pretrained", "untrained"),
    ("pretrained", "raw pixels"),
    ("pretrained + searched", "pretrained"),
    ("pretrained + searched", "raw pixels"),
)
"""Methods whose difference `main` reports, first - second."""


def episodes_of(finetune_run: str) -> pd.DataFrame:
    """Read one row per episode: episode, seed, classes, its metrics, seconds."""
    return pd.read_parquet(fetch_artifact(finetune_run, EPISODES_ARTIFACT))


def accuracies(finetune_run: str) -> dict[int, float]:
    """Accuracy by episode number."""
    table = episodes_of(finetune_run)
    return {int(e): float(a) for e, a in zip(table["episode"], table["accuracy"], strict=True)}


def paired_accuracies(runs: Mapping[str, Run]) -> dict[str, list[float]]:
    """Accuracies of `named_runs` on the episodes that all of them scored, in one order, by the same names."""
    tables = {name: accuracies(run.info.run_id) for name, run in runs.items()}
    shared = sorted(set.intersection(*(set(table) for table in tables.values())))
    return {name: [table[e] for e in shared] for name, table in tables.items()}


def named_runs(finetune_runs: Sequence[str]) -> dict[str, Run]:
    """Several finetune runs of the same episodes, by readable name.

    Raises:
        InputError: fewer than two runs, the same run twice, or runs whose episodes are not the same.
    """
    advice = "give the same target, part, seed and episode shape to both"
    return {
        _readable(run): run for run in find_comparable_runs(finetune_runs, "finetune", "episodes", "episodes", advice)
    }


def _readable(run: Run) -> str:
    return f"{short_network(run.data.tags['network'])} ({run.info.run_id[:8]})"


def accuracy_of(finetune_run: str) -> Estimate:
    """Mean accuracy of a finetune run with its interval."""
    return estimate(list(accuracies(finetune_run).values()))


def run_ids(text: str) -> list[str]:
    """The ids in a text that separates them by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
