"""Drift: whether new images look like those that a classifier was made from, and what of these it takes to tell."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy import stats

from pipelines.store.artifacts import fetch_artifact
from tl_core.data.dataset import ImageDataset
from tl_core.data.splits import Indices
from tl_core.scoring.drift import compare_features
from tl_core.scoring.unlike import REFUSED

FeaturesOf = Callable[[NDArray[np.uint8]], NDArray[np.float32] | None]
"""From images, uint8 (m, s, s, 3), to features; None where the file shows none."""

FEATURES_ARTIFACT = "features.safetensors"
_MOST = 2000  # images of a sample


def log_learned_features(features: NDArray[np.float32], dataset: ImageDataset, groups: NDArray[np.int64]) -> None:
    """Keep features of the images that a classifier is made from, one of each group, with the active run.

    Args:
        features: float32 (n, d).
        groups: int64 (n,), equal for images that show the same.
    """
    rows = _sample(np.arange(len(groups)), groups)
    kept: dict[str, NDArray[Any]] = {"features": features[rows].astype(np.float16), "labels": dataset.labels[rows]}
    with tempfile.TemporaryDirectory() as folder:
        save_file(kept, Path(folder, FEATURES_ARTIFACT))
        mlflow.log_artifacts(folder)


def measure_drift(run_id: str, dataset: ImageDataset, rows: Indices, features_of: FeaturesOf) -> dict[str, float]:
    """Return the p-value of the features' two-sample test, as a metric; none where there is nothing to compare.

    Args:
        run_id: the run that made the classifier.
        rows: of the new images, int64 (n,); their labels are numbered as the classifier's classes.

    Raises:
        InputError: the run has kept no features, as runs of earlier versions have not.
    """
    learned = load_file(fetch_artifact(run_id, FEATURES_ARTIFACT))
    sample = _sample(rows, dataset.near_duplicates[rows])
    found = features_of(np.array(dataset.images[sample]))
    if found is None or found.shape[1] != learned["features"].shape[1]:
        return {}
    old = learned["features"].astype(np.float32)
    p_value = compare_features(old, learned["labels"], found, dataset.labels[sample])
    return {} if np.isnan(p_value) else {"drift_p_value": p_value}


def count_unlike(unlike: NDArray[Any]) -> dict[str, float]:
    """Share of images that look like none of the classes, and the p-value of so many among images like the old ones.

    Args:
        unlike: of each image whether it does, (n,).
    """
    n_unlike = int(unlike.astype(bool).sum())
    test = stats.binomtest(n_unlike, len(unlike), REFUSED, alternative="greater")
    return {"n_unlike": n_unlike, "unlike_share": n_unlike / len(unlike), "unlike_p_value": float(test.pvalue)}


def _sample(rows: Indices, groups: NDArray[np.int64]) -> Indices:
    """At most `_MOST` of the rows, one of each group."""
    _, first = np.unique(groups, return_index=True)
    positions = np.sort(np.random.default_rng(0).permutation(first)[:_MOST])
    return np.asarray(rows[positions])
