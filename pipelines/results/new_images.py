"""Scores of a finished classifier on new labelled images, as a run keeps them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from pipelines.results.drift import FeaturesOf, count_unlike, measure_drift
from pipelines.results.nearest import Neighbours, NeighboursOf
from pipelines.results.predictions import log_answers
from pipelines.results.scores import image_accuracies
from pipelines.store.find import find_run
from pipelines.store.logging import interval_metrics
from serving.model import OnnxClassifier
from tl_core.data.dataset import ImageDataset
from tl_core.data.splits import Indices
from tl_core.errors import InputError
from tl_core.scoring.images import Interval, wilson, wilson_of_share
from tl_core.training.staged import ImagePredictions

_MOST_COMPARED = 2000  # images that a mistake is compared with: a sample of more


@dataclass(frozen=True)
class NewImageScores:
    """Scores on new images, over all of them and with every class weighing the same."""

    accuracy: Interval
    balanced_accuracy: Interval


def keep_new(model: OnnxClassifier, dataset: ImageDataset, rows: Indices) -> Indices:
    """Keep the rows of images that the classifier was not made from, as far as the file and the records know.

    Raises:
        InputError: it was made from all of them.
    """
    hashes = [dataset.content_hashes[row] for row in rows]
    made_from = {content for content in hashes if model.has_learned_digest(bytes.fromhex(content))}
    if model.metadata.get("target_fingerprint") == dataset.fingerprint:
        made_from.update(hashes)
    # The records of the run that made the file need not be here.
    with suppress(InputError, MlflowException):
        run = find_run(model.metadata.get("fit_run", ""), "classify")
        made_from |= set(image_accuracies(run.info.run_id).index)
    new = rows[[content not in made_from for content in hashes]]
    if not len(new):
        raise InputError(f"expected images that the classifier was not made from, got {len(rows):,} that it was")
    mlflow.log_metric("n_learned", len(rows) - len(new))
    return new


def log_new_images(
    dataset: ImageDataset,
    rows: Indices,
    probabilities: NDArray[np.float32],
    unlike: NDArray[Any] | None,
    features_of: FeaturesOf,
    fit_run: str,
) -> NewImageScores:
    """Log metrics and predictions with the active run.

    Args:
        rows: those that were scored, int64 (n,).
        probabilities: float32 (n, n_classes).
        unlike: of each image whether it looks like none of the classes, (n,); None where the file has no threshold.
        features_of: the features by which the file compares images with its classes.
        fit_run: id of the run that made the classifier; empty if it is not known.
    """
    labels, predicted = dataset.labels[rows], probabilities.argmax(1)
    right = labels == predicted
    recalls = [wilson(right[labels == label]) for label in np.unique(labels)]
    n_effective = len(recalls) ** 2 / sum(1 / recall.n for recall in recalls)
    balanced = wilson_of_share(float(np.mean([recall.value for recall in recalls])), n_effective)
    found = NewImageScores(wilson(right), balanced)
    scores = interval_metrics("accuracy", found.accuracy) | interval_metrics("balanced_accuracy", balanced)
    mlflow.log_metrics({**scores, "n_images": len(rows), "n_classes": len(recalls)})
    answers = ImagePredictions(rows, labels, predicted, probabilities.max(1))
    neighbours_of = _neighbours_of(dataset, answers, features_of)
    mlflow.log_metric("calibration_error", log_answers(dataset, answers, "new images", neighbours_of))
    if unlike is not None and unlike[0] is not None:
        mlflow.log_metrics(count_unlike(unlike))
    # Where the records of the run that made the file are not here, there is nothing to compare with.
    with suppress(InputError, MlflowException):
        mlflow.log_metrics(measure_drift(find_run(fit_run, "classify").info.run_id, dataset, rows, features_of))
    return found


def _neighbours_of(dataset: ImageDataset, answers: ImagePredictions, features_of: FeaturesOf) -> NeighboursOf | None:
    """Compare each mistake with other new images; None where there is none, or the file shows no features."""
    sample = np.random.default_rng(0).permutation(np.unique(answers.rows))[:_MOST_COMPARED]
    known = None if (answers.labels == answers.predictions).all() else features_of(np.array(dataset.images[sample]))
    if known is None:
        return None

    def neighbours_of(position: int) -> Neighbours:
        row = int(answers.rows[position])
        own = features_of(np.array(dataset.images[[row]]))
        others = sample != row
        return Neighbours(dataset, np.append(sample[others], row), np.concatenate([known[others], own]))

    return neighbours_of
