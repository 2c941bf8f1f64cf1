"""Predictions that a run keeps: confusions, accuracy by image, reliability, and examples."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.results.figures import draw_confusion
from pipelines.results.nearest import NeighboursOf
from pipelines.results.thumbnails import readable_name, thumbnail
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.logging import beside_the_numbers, log_drawing
from tl_core.data.dataset import ImageDataset
from tl_core.data.splits import Indices
from tl_core.scoring.classification import Reliability, count_confusions, reliability
from tl_core.scoring.images import Interval, wilson_of_share

if TYPE_CHECKING:
    from tl_core.training.staged import ImagePredictions

CONFUSIONS_ARTIFACT, RELIABILITY_ARTIFACT = "confusion.json", "reliability.json"
IMAGES_ARTIFACT, EXAMPLES_ARTIFACT = "images.parquet", "examples.parquet"
N_EXAMPLES = 12
"""Examples of right answers, and as many of wrong ones, that are kept with their pictures."""


@dataclass(frozen=True)
class KeptAnswers:
    """The answers of a run, read back.

    Attributes:
        confusions: from `count_confusions`.
        images: one row per scored image: file, content_hash, group (of near-duplicates), label, n_asked, n_right.
        examples: file, label, prediction, probability, and jpeg, the picture's bytes; of mistakes, where it is known,
            nearest_label and nearest_prediction, pictures of labelled images.
    """

    class_names: tuple[str, ...]
    confusions: NDArray[np.int64]
    reliability: Reliability
    images: pd.DataFrame
    examples: pd.DataFrame

    def recalls(self) -> dict[str, Interval]:
        """Recall of each class that was asked, over its images: an image that was asked several times counts once."""
        shares = (self.images["n_right"] / self.images["n_asked"]).groupby(self.images["label"])
        return {str(name): wilson_of_share(float(of_class.mean()), len(of_class)) for name, of_class in shares}


def log_answers(
    dataset: ImageDataset, answers: ImagePredictions, of: str, neighbours_of: NeighboursOf | None = None
) -> float:
    """Keep what is known of the answers with the active run; returns their calibration error.

    Args:
        of: what was asked, as the confusion matrix says it.
        neighbours_of: labelled images to show beside the mistakes.
    """
    names = dataset.class_names
    right = answers.labels == answers.predictions
    confusions = count_confusions(answers.labels, answers.predictions)
    mlflow.log_dict({"class_names": names, "confusions": confusions.tolist()}, CONFUSIONS_ARTIFACT)
    log_drawing(partial(draw_confusion, confusions, names, of), "confusion.png")
    calibration = reliability(answers.probabilities.astype(np.float64), right)
    mlflow.log_dict({name: values.tolist() for name, values in vars(calibration).items()}, RELIABILITY_ARTIFACT)
    with tempfile.TemporaryDirectory() as folder:
        _count_by_image(dataset, answers.rows, right).to_parquet(Path(folder, IMAGES_ARTIFACT))
        examples, positions = _pick_examples(dataset, answers)
        if neighbours_of is not None:
            with beside_the_numbers("images beside its mistakes"):
                nearest = pd.DataFrame(_nearest_pictures(dataset, answers, positions, neighbours_of))
                examples = examples.join(nearest)
        examples.to_parquet(Path(folder, EXAMPLES_ARTIFACT))
        mlflow.log_artifacts(folder)
    return calibration.error


def read_answers(run_id: str) -> KeptAnswers:
    """The answers that a run has kept.

    Raises:
        InputError: it has kept none, as runs of earlier versions have not.
    """
    kept = json.loads(fetch_artifact(run_id, CONFUSIONS_ARTIFACT).read_text())
    bins = json.loads(fetch_artifact(run_id, RELIABILITY_ARTIFACT).read_text())
    return KeptAnswers(
        class_names=tuple(kept["class_names"]),
        confusions=read_confusions(kept),
        reliability=Reliability(**{name: np.array(values) for name, values in bins.items()}),
        images=pd.read_parquet(fetch_artifact(run_id, IMAGES_ARTIFACT)),
        examples=pd.read_parquet(fetch_artifact(run_id, EXAMPLES_ARTIFACT)),
    )


def read_confusions(kept: Mapping[str, Any]) -> NDArray[np.int64]:
    """Confusions, as `count_confusions` gives them, from the content of `CONFUSIONS_ARTIFACT`."""
    if "confusions" in kept:
        return np.array(kept["confusions"], dtype=np.int64).reshape(-1, 3)
    return pairs_of_matrix(np.array(kept["counts"], dtype=np.int64))  # of earlier releases


def pairs_of_matrix(counts: NDArray[Any]) -> NDArray[Any]:
    """Confusions as `count_confusions` gives them, from a matrix with true classes in rows."""
    pairs = np.nonzero(counts)
    return np.stack([*pairs, counts[pairs]], axis=1).reshape(-1, 3)


def _count_by_image(dataset: ImageDataset, rows: Indices, right: NDArray[np.bool_]) -> pd.DataFrame:
    asked, image = np.unique(rows, return_inverse=True)
    return pd.DataFrame(
        {
            "file": [readable_name(dataset, row) for row in asked],
            "content_hash": [dataset.content_hashes[row] for row in asked],
            "group": dataset.near_duplicates[asked],
            "label": [dataset.class_names[label] for label in dataset.labels[asked]],
            "n_asked": np.bincount(image),
            "n_right": np.bincount(image, weights=right).astype(np.int64),
        }
    )


def _pick_examples(dataset: ImageDataset, answers: ImagePredictions) -> tuple[pd.DataFrame, Indices]:
    """The most confident mistakes, and right answers by chance, each of another image; and their positions."""
    wrong = answers.labels != answers.predictions
    mistakes = np.flatnonzero(wrong)
    mistakes = mistakes[np.argsort(-answers.probabilities[mistakes], kind="stable")]
    hits = np.random.default_rng(0).permutation(np.flatnonzero(~wrong))
    chosen = np.concatenate([_of_other_images(answers.rows, order) for order in (mistakes, hits)]).astype(np.int64)
    return table_of_answers(dataset, answers, chosen), chosen


def table_of_answers(dataset: ImageDataset, answers: ImagePredictions, chosen: Indices) -> pd.DataFrame:
    """Table of some answers: file, label, prediction, probability, and jpeg, the picture's bytes."""
    names = np.array(dataset.class_names, dtype=object)
    return pd.DataFrame(
        {
            "file": [readable_name(dataset, row) for row in answers.rows[chosen]],
            "label": names[answers.labels[chosen]],
            "prediction": names[answers.predictions[chosen]],
            "probability": answers.probabilities[chosen].astype(np.float64),
            "jpeg": [thumbnail(dataset.images[row]) for row in answers.rows[chosen]],
        }
    )


def _nearest_pictures(
    dataset: ImageDataset, answers: ImagePredictions, positions: Indices, neighbours_of: NeighboursOf
) -> dict[str, list[bytes | None]]:
    """Columns of pictures: the nearest image of its own class, and of the class a mistake was taken for."""
    pictures: dict[str, list[bytes | None]] = {"nearest_label": [], "nearest_prediction": []}
    for at in map(int, positions):
        label, taken = int(answers.labels[at]), int(answers.predictions[at])
        neighbours = neighbours_of(at) if label != taken else None
        for column, wanted in zip(pictures.values(), (label, taken), strict=True):
            row = neighbours.find(int(answers.rows[at]), wanted) if neighbours else None
            column.append(None if row is None else thumbnail(dataset.images[row]))
    return pictures


def _of_other_images(rows: Indices, order: Indices) -> Indices:
    """The first `N_EXAMPLES` positions of an order that show different images."""
    _, first = np.unique(rows[order], return_index=True)
    return order[np.sort(first)[:N_EXAMPLES]]
