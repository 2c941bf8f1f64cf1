"""Scores of runs, read back: of finetune runs by episode, of other runs by image."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from mlflow.entities import Run

from pipelines.inputs.names import short_network
from pipelines.results.comparable import find_comparable_runs, tell_apart
from pipelines.results.predictions import IMAGES_ARTIFACT
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.params import used_params
from pipelines.store.runs import KIND
from tl_core.errors import InputError
from tl_core.scoring.episodes import Estimate, estimate
from tl_core.scoring.paired import PairComparison, PairedDifference, compare_pairs, paired_over_images

EPISODES_ARTIFACT, HARDEST_ARTIFACT = "episodes.parquet", "hardest_episode.parquet"
"""Of a finetune run: a row for each episode, and the mistakes of the one with the lowest accuracy, with pictures."""
METHODS_ARTIFACT = "methods.json"
"""Of a main run: its finetune runs by method."""
SHOTS_ARTIFACT = "shots.json"
"""Of a main run: its finetune runs by number of support images per class."""

SCORED_THEMSELVES = ("train", "classify")
"""Kinds of runs that scored the classifier they made."""

COMPARED = (
    ("pretrained", "untrained"),
    ("pretrained", "raw pixels"),
    ("pretrained + searched", "pretrained"),
    ("pretrained + searched", "raw pixels"),
)
"""Methods whose difference `main` reports, first - second."""


def accuracy_metrics(run: Run) -> dict[str, str]:
    """Name the metrics of a train or classify run that its headline says: mean, low and high, and n_images."""
    if run.data.tags[KIND] == "train":
        name, n_images = "test/accuracy", "n_test"
    else:
        balanced = used_params(run).get("priors") == "balanced"
        name, n_images = "balanced_accuracy" if balanced else "accuracy", "n_images"
    return {"mean": name, "low": f"{name}_low", "high": f"{name}_high", "n_images": n_images}


class NoContentHashesError(InputError):
    """Scores by image whose images are not known by content, as runs of earlier releases kept them."""


def episodes_of(finetune_run: str) -> pd.DataFrame:
    """Read one row per episode: episode, seed, classes, its metrics, seconds."""
    return pd.read_parquet(fetch_artifact(finetune_run, EPISODES_ARTIFACT))


def classes_of_episode(finetune_run: str) -> list[str]:
    """Read the classes of a finetune run's first episode, in its order."""
    return [str(name) for name in episodes_of(finetune_run)["classes"].iloc[0]]


def accuracies(finetune_run: str) -> dict[int, float]:
    """Accuracy by episode number."""
    table = episodes_of(finetune_run)
    return {int(e): float(a) for e, a in zip(table["episode"], table["accuracy"], strict=True)}


def paired_accuracies(runs: Mapping[str, Run]) -> dict[str, list[float]]:
    """Accuracies of `named_runs` on the episodes that all of them scored, in one order, by the same names."""
    tables = {name: accuracies(run.info.run_id) for name, run in runs.items()}
    shared = sorted(set.intersection(*(set(table) for table in tables.values())))
    return {name: [table[e] for e in shared] for name, table in tables.items()}


def image_accuracies(run_id: str) -> pd.DataFrame:
    """Read the accuracy of a finetune, train or classify run on each image, over the episodes that asked for it.

    Returns:
        By content hash, sorted: accuracy, n_asked (times scored), group (equal for near-duplicates).

    Raises:
        NoContentHashesError: the run keeps no content hashes of its images.
    """
    table = pd.read_parquet(fetch_artifact(run_id, IMAGES_ARTIFACT))
    if not {"content_hash", "group"} <= set(table):
        raise NoContentHashesError(
            f"expected content hashes in {IMAGES_ARTIFACT} of run {run_id}, got {', '.join(map(str, table))}; "
            "it is of an earlier release: repeat the run"
        )
    # Files of the same content are one image.
    images = table.groupby("content_hash").agg({"n_asked": "sum", "n_right": "sum", "group": "first"})
    return images.assign(accuracy=images["n_right"] / images["n_asked"])


def compare_over_images(tables: Mapping[str, pd.DataFrame]) -> list[PairComparison]:
    """Compare every pair of runs over their images, from `image_accuracies` by name."""
    return compare_pairs(differences_over_images(tables, itertools.combinations(tables, 2)))


def differences_over_images(
    tables: Mapping[str, pd.DataFrame], pairs: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], PairedDifference]:
    """Estimate paired differences, first - second, over the images that both were scored on.

    Args:
        tables: `image_accuracies` by name; `pairs` are two of the names each.
    """
    return {(first, second): _difference_over_images(tables[first], tables[second]) for first, second in pairs}


def differences_of_methods(methods: Mapping[str, str]) -> dict[tuple[str, str], PairedDifference]:
    """Estimate the differences that `main` reports over images, from its finetune runs by method."""
    tables = {method: image_accuracies(run_id) for method, run_id in methods.items()}
    return differences_over_images(tables, [(a, b) for a, b in COMPARED if {a, b} <= tables.keys()])


def _difference_over_images(first: pd.DataFrame, second: pd.DataFrame) -> PairedDifference:
    shared = first.index.intersection(second.index)
    one, other = first.loc[shared], second.loc[shared]
    differences = (one["accuracy"] - other["accuracy"]).to_numpy(dtype=np.float64)
    sizes, groups = one["n_asked"].to_numpy(dtype=np.float64), one["group"].to_numpy(dtype=np.int64)
    return paired_over_images(differences, sizes, groups)


def named_runs(finetune_runs: Sequence[str]) -> dict[str, Run]:
    """Several finetune runs of the same episodes, by readable name.

    Raises:
        InputError: fewer than two runs, the same run twice, or runs whose episodes are not the same.
    """
    advice = "give the same target, part, seed and episode shape to both"
    runs = find_comparable_runs(finetune_runs, "finetune", "episodes", "episodes", advice)
    names = tell_apart([short_network(run.data.tags["network"]) for run in runs], runs)
    return dict(zip(names, runs, strict=True))


def accuracy_of(finetune_run: str) -> Estimate:
    """Mean accuracy of a finetune run with its interval."""
    return estimate(list(accuracies(finetune_run).values()))


def run_ids(text: str) -> list[str]:
    """The ids in a text that separates them by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
