"""Origin of a run and the images it has seen, so that no number is reported on images already used."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
from mlflow.entities import Run
from numpy.typing import NDArray

from pipelines.inputs.names import is_run, network_name
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.redaction import redact
from tl_core.data.dataset import ImageDataset
from tl_core.data.splits import Indices
from tl_core.errors import InputError
from tl_core.recipes.finetune import FinetuneRecipe

if TYPE_CHECKING:
    from tl_core.networks.backbones import BackboneSpec

SEEN_ARTIFACT = "seen_images.npy"
NORMALISATION = "normalisation"

METHOD = ("network", "recipe")
"""Tags that say how a classifier was made, whatever it was made from."""

_ORIGIN = (*METHOD, "target_fingerprint")


def log_origin(network: str, spec: BackboneSpec, seed: int, recipe: FinetuneRecipe) -> None:
    """Tag the active run with the network and the recipe that it really uses; `log_dataset` adds the data.

    The temperature is left out: it changes no answer, so the scores without one speak of the classifier that has one.
    """
    answers = {name: value for name, value in asdict(recipe).items() if name != "temperature"}
    mlflow.set_tags({"network": redact(network_name(network, spec, seed)), "recipe": json.dumps(answers)})
    log_normalisation(spec)


def log_normalisation(spec: BackboneSpec) -> None:
    """Tag the active run with how pixels are normalised for its network."""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std))
    mlflow.set_tag(NORMALISATION, f"mean {mean}; standard deviation {std}")


def check_same_origin(scored: Run, fitted: Run) -> None:
    """Raise `InputError` unless the scores of one run speak of the classifier of the other."""
    for name in _ORIGIN:
        if scored.data.tags.get(name) != fitted.data.tags.get(name):
            raise InputError(
                f"finetune run {scored.info.run_id} scored another {name} than fit run {fitted.info.run_id} used; "
                "give the finetune run that scored this classifier"
            )


def log_seen_images(dataset: ImageDataset, rows: Indices, weights: str = "") -> None:
    """Keep with the active run which images it has learned or chosen from, by content.

    Args:
        weights: what it started from; a pretrain run hands on what it has seen.
    """
    seen = _content_ids(dataset, rows)
    if weights and is_run(weights):
        seen = np.append(seen, _read_seen(weights))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, SEEN_ARTIFACT)
        np.save(path, np.unique(seen))
        mlflow.log_artifact(str(path))


def check_unseen(run_id: str, kind: str, dataset: ImageDataset, rows: Indices) -> None:
    """Raise `InputError` if the run has seen one of these images."""
    n_shared = int(np.isin(_content_ids(dataset, rows), _read_seen(run_id)).sum())
    if n_shared:
        raise InputError(
            f"{kind} run {run_id} has seen {n_shared:,} of the {len(rows):,} images to report on; "
            f"repeat the {kind} without them (after images were added, search again)"
        )


def _read_seen(run_id: str) -> NDArray[np.uint64]:
    seen: NDArray[np.uint64] = np.load(fetch_artifact(run_id, SEEN_ARTIFACT), allow_pickle=False)
    return seen


def _content_ids(dataset: ImageDataset, rows: Indices) -> NDArray[np.uint64]:
    """First 64 bits of each image file's SHA-256: (len(rows),)."""
    return np.array([int(dataset.content_hashes[row][:16], 16) for row in rows], dtype=np.uint64)
