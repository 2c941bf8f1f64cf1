"""Estimate of a delivered classifier, as a run keeps it: scores, when to believe it, suspect labels, and examples."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.results.nearest import Neighbours
from pipelines.results.network_scores import NetworkScore
from pipelines.results.predictions import log_answers, pairs_of_matrix
from pipelines.results.thumbnails import readable_name, thumbnail
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.logging import interval_metrics
from tl_core.data.dataset import ImageDataset
from tl_core.recipes.choices import Priors
from tl_core.scoring.delivered import DeliveredScores, find_taken_for
from tl_core.scoring.images import Interval
from tl_core.scoring.selective import Believed
from tl_core.scoring.suspects import Suspect

if TYPE_CHECKING:  # torch, which a page does not need
    from tl_core.crossvalidation.folds import Folds, Groups
    from tl_core.crossvalidation.learning_curve import CurvePoint
    from tl_core.crossvalidation.procedure import Candidate, Procedure
    from tl_core.training.staged import ImagePredictions

ESTIMATE_ARTIFACT = "estimate.json"
OUT_OF_FOLD_ARTIFACT = "out_of_fold.parquet"
SUSPECTS_ARTIFACT = "suspects.parquet"
LEARNED_ARTIFACT = "learned_from.parquet"
_MOST_SUSPECTS, _MOST_LEARNED = 20, 12


@dataclass(frozen=True)
class DeliveredEstimate:
    """Estimate of a delivered classifier, before it is used.

    Attributes:
        scores: on new images.
        believed: predictions above each probability, and how many of them are right.
        bar: probability from which on `wanted_precision` of the predictions are right; None where none is known to be.
        curve: learning curve; empty where a fold leaves a class without images.
        candidates: weights, penalty and log loss of each candidate; `chosen` is a position among them.
        notice: sentences on what the estimate cannot say.
        networks: those that were chosen among.
    """

    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    priors: Priors
    scores: DeliveredScores
    believed: tuple[Believed, ...]
    wanted_precision: float
    bar: float | None
    curve: tuple[CurvePoint, ...]
    candidates: tuple[dict[str, Any], ...]
    chosen: int
    n_folds: int
    n_repeats: int
    n_groups: int
    notice: tuple[str, ...] = ()
    networks: tuple[NetworkScore, ...] = ()

    @property
    def headline(self) -> Interval:
        """Accuracy on new images, with the class shares that `priors` says."""
        return self.scores.balanced_accuracy if self.priors == "balanced" else self.scores.accuracy


def list_candidates(candidates: Sequence[Candidate], losses: NDArray[np.float64]) -> tuple[dict[str, Any], ...]:
    """Return weights, penalty and log loss of each candidate, as an estimate keeps them."""
    pairs = zip(candidates, losses, strict=True)
    return tuple({"weights": one.features, "l2": one.l2, "log_loss": float(loss)} for one, loss in pairs)


def log_estimate(
    estimate: DeliveredEstimate, dataset: ImageDataset, procedure: Procedure, groups: Groups, neighbours: Neighbours
) -> None:
    """Log an estimate with the active run: its metrics, its predictions image by image, and what a page shows."""
    scores = estimate.scores
    mlflow.log_metrics(
        {
            **interval_metrics("accuracy", scores.accuracy),
            **interval_metrics("balanced_accuracy", scores.balanced_accuracy),
            "n_images": len(dataset.labels),
            "n_classes": len(dataset.class_names),
            "log_loss": scores.log_loss,
            "calibration_error": scores.calibration_error,
        }
    )
    if estimate.bar is not None:
        mlflow.log_metrics({"believe_from": estimate.bar, "wanted_precision": estimate.wanted_precision})
    mlflow.log_dict(asdict(estimate), ESTIMATE_ARTIFACT)
    log_answers(dataset, _answers(procedure), "out-of-fold predictions", lambda _: neighbours)
    with tempfile.TemporaryDirectory() as folder:
        _table(dataset, procedure, groups, estimate.candidates).to_parquet(Path(folder, OUT_OF_FOLD_ARTIFACT))
        _learned_from(dataset).to_parquet(Path(folder, LEARNED_ARTIFACT))
        mlflow.log_artifacts(folder)


def read_estimate(run_id: str) -> DeliveredEstimate:
    """Read back the estimate of a classify run.

    Raises:
        InputError: the run keeps none.
    """
    from tl_core.crossvalidation.learning_curve import CurvePoint

    found: dict[str, Any] = json.loads(fetch_artifact(run_id, ESTIMATE_ARTIFACT).read_text())
    scores = found.pop("scores")
    for name in ("accuracy", "balanced_accuracy"):
        scores[name] = Interval(**scores[name])
    scores["recalls"] = tuple(Interval(**recall) for recall in scores["recalls"])
    if "confusions" in scores:  # of earlier releases: the whole matrix
        counts = np.array(scores.pop("confusions"))
        scores["taken_for"] = find_taken_for(pairs_of_matrix(counts), len(counts))
    scores["taken_for"] = tuple(scores["taken_for"])
    believed = (Believed(b["bar"], Interval(**b["answered"]), Interval(**b["right"])) for b in found.pop("believed"))
    curve = (CurvePoint(point["n_images"], Interval(**point["accuracy"])) for point in found.pop("curve"))
    networks = tuple(map(NetworkScore.from_json, found.pop("networks", ())))  # earlier releases kept none
    for name in ("class_names", "counts", "candidates", "notice"):
        found[name] = tuple(found[name])
    return DeliveredEstimate(
        scores=DeliveredScores(**scores),
        believed=tuple(believed),
        curve=tuple(curve),
        networks=networks,
        **found,
    )


def log_suspects(suspects: Sequence[Suspect], dataset: ImageDataset, neighbours: Neighbours) -> None:
    """Log the most suspect labels, each with its picture and the nearest images of both classes."""
    rows = [_suspect_row(one, dataset, neighbours) for one in suspects[:_MOST_SUSPECTS]]
    mlflow.log_metric("n_suspects", len(suspects))
    if not rows:
        return
    with tempfile.TemporaryDirectory() as folder:
        pd.DataFrame(rows).to_parquet(Path(folder, SUSPECTS_ARTIFACT))
        mlflow.log_artifacts(folder)


def _suspect_row(suspect: Suspect, dataset: ImageDataset, neighbours: Neighbours) -> dict[str, object]:
    found = {name: neighbours.find(suspect.image, getattr(suspect, name)) for name in ("label", "likely")}
    nearest = {
        f"nearest_{name}": None if row is None else thumbnail(dataset.images[row]) for name, row in found.items()
    }
    return {
        "file": readable_name(dataset, suspect.image),
        "label": dataset.class_names[suspect.label],
        "likely": dataset.class_names[suspect.likely],
        "probability": suspect.probability,
        "jpeg": thumbnail(dataset.images[suspect.image]),
        **nearest,
    }


def _answers(procedure: Procedure) -> ImagePredictions:
    from tl_core.training.staged import ImagePredictions

    found = procedure.out_of_fold
    predicted = found.probabilities.argmax(1)
    return ImagePredictions(found.image, found.label, predicted, found.probabilities.max(1).astype(np.float32))


def _table(
    dataset: ImageDataset, procedure: Procedure, groups: Groups, candidates: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """One row per image and repeat."""
    found = procedure.out_of_fold
    names = np.array(dataset.class_names, dtype=object)
    files = np.array([readable_name(dataset, row) for row in range(len(dataset.labels))], dtype=object)
    columns = {
        "file": files[found.image],
        "content_hash": np.array(dataset.content_hashes, dtype=object)[found.image],
        "group": groups.of_image[found.image],
        "repeat": found.repeat,
        "fold": found.fold,
        "label": names[found.label],
        "prediction": names[found.probabilities.argmax(1)],
        "probability": found.probabilities.max(1),
        "weights": np.array([one["weights"] for one in candidates], dtype=object)[found.candidate],
        "l2": np.array([one["l2"] for one in candidates])[found.candidate],
    }
    of_classes = {f"probability:{name}": found.probabilities[:, c] for c, name in enumerate(dataset.class_names)}
    return pd.DataFrame({**columns, **of_classes})


def fold_metrics(procedure: Procedure, folds: Folds) -> dict[str, dict[str, float]]:
    """Return the metrics of each fold, by the name of its run."""
    found = procedure.out_of_fold
    right = found.probabilities.argmax(1) == found.label
    return {
        f"fold-{repeat + 1}-{fold + 1}": {
            "accuracy": float(right[held].mean()),
            "n_images": int(held.sum()),
            "candidate": int(found.candidate[held][0]),
        }
        for repeat in range(folds.n_repeats)
        for fold in range(folds.n_folds)
        for held in [(found.repeat == repeat) & (found.fold == fold)]
    }


def _learned_from(dataset: ImageDataset) -> pd.DataFrame:
    """One image of each of the first classes."""
    order = np.random.default_rng(0).permutation(len(dataset.labels))
    _, first = np.unique(dataset.labels[order], return_index=True)
    rows = order[first][:_MOST_LEARNED]
    return pd.DataFrame(
        {
            "file": [readable_name(dataset, row) for row in rows],
            "label": [dataset.class_names[label] for label in dataset.labels[rows]],
            "jpeg": [thumbnail(dataset.images[row]) for row in rows],
        }
    )
