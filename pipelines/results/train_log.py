"""A training in MLflow: one nested run per stage, and on the parent the classifier that validation chose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from pipelines.inputs.artifacts import CLASSIFIER_ARTIFACT
from pipelines.results.classifiers import save_samples
from pipelines.results.figures import Curve, draw_curves
from pipelines.results.predictions import log_answers
from pipelines.results.thumbnails import readable_name
from pipelines.results.trainings import CURVES, PREDICTIONS_ARTIFACT
from pipelines.store.logging import interval_metrics, log_drawing, log_series
from pipelines.store.redaction import redact
from tl_core.data.dataset import ImageDataset
from tl_core.data.splits import ClassSplit
from tl_core.heads.storage import save_classifier
from tl_core.scoring.classification import score_predictions
from tl_core.scoring.images import Interval, wilson
from tl_core.training.resumable import Epoch
from tl_core.training.staged import ImagePredictions, Training


@dataclass(frozen=True)
class _Finished:
    number: int
    best_val: float
    predictions: ImagePredictions
    accuracy: Interval


class TrainLog:
    """Collects the stages of the active run; `close` writes what is known of the training as a whole."""

    def __init__(self, dataset: ImageDataset, split: ClassSplit, network: str, folder: Path) -> None:
        """`network` is the name of what is trained; `folder` takes the artifacts until they are logged."""
        self._dataset = dataset
        self._split = split
        self._epochs: list[Epoch] = []
        self._stages: list[_Finished] = []
        self._folder = folder
        sizes = {part: len(getattr(split, part)) for part in ("train", "val", "test")}
        mlflow.log_metrics({f"n_{part}": size for part, size in sizes.items()})
        # What makes two runs comparable: the same test images.
        mlflow.set_tags({"network": redact(network), "test_images": _test_images(dataset, split)})

    def add(self, epoch: Epoch) -> None:
        """Record one epoch in the active run, the stage's."""
        self._epochs.append(epoch)
        mlflow.log_metrics(
            {
                **_points(epoch),
                "train/lr": epoch.training.lr,
                "train/images_per_second": epoch.training.images / epoch.training.seconds,
            },
            step=epoch.training.epoch,
        )

    def close_stage(self, training: Training) -> None:
        """Score the test part with the stage's weights, and keep the classifier if validation likes it best."""
        number = self._epochs[-1].stage
        best_val = max(epoch.val_accuracy for epoch in self._epochs if epoch.stage == number)
        predictions = training.predict_test()
        accuracy = wilson(predictions.labels == predictions.predictions)
        mlflow.log_metrics({"val/best_accuracy": best_val, **_scores(predictions, accuracy)})
        self._stages.append(_Finished(number, best_val, predictions, accuracy))
        if self._chosen().number == number:
            save_classifier(training.classifier(), training.description(), self._folder / CLASSIFIER_ARTIFACT)

    def close(self) -> Interval:
        """Log the chosen stage's scores, predictions, classifier and pictures; returns its test accuracy."""
        chosen = self._chosen()
        mlflow.log_metrics({"stage": chosen.number, "val/best_accuracy": chosen.best_val})
        scores = _scores(chosen.predictions, chosen.accuracy)
        mlflow.log_metrics(scores | interval_metrics("accuracy", chosen.accuracy))
        for stage in self._stages:
            mlflow.log_metrics(interval_metrics(f"stage_{stage.number}/test_accuracy", stage.accuracy))
        points = [_points(epoch) for epoch in self._epochs]
        series = {name: [point[name] for point in points] for name in CURVES}
        log_series(series)
        log_drawing(partial(draw_curves, [Curve("", *series.values())]), "curves.png")
        mlflow.log_metric("test/ece", log_answers(self._dataset, chosen.predictions, "test images"))
        self._table(chosen.predictions).to_parquet(self._folder / PREDICTIONS_ARTIFACT)
        save_samples(self._dataset, self._split.train, 0, self._folder)
        mlflow.log_artifacts(str(self._folder))
        return chosen.accuracy

    def say_chosen(self) -> str:
        """Say which stage is kept, and why."""
        chosen = self._chosen()
        best = f"best on validation ({100 * chosen.best_val:.2f} % of {len(self._split.val):,})"
        return f"by stage {chosen.number} of {len(self._stages)}, {best}"

    def _chosen(self) -> _Finished:
        """The stage with the best validation accuracy; of equal ones the last, which has seen more."""
        return max(self._stages, key=lambda stage: (stage.best_val, stage.number))

    def _table(self, predictions: ImagePredictions) -> pd.DataFrame:
        names = np.array(self._dataset.class_names, dtype=object)
        return pd.DataFrame(
            {
                "file": [readable_name(self._dataset, row) for row in predictions.rows],
                "content_hash": [self._dataset.content_hashes[row] for row in predictions.rows],
                "label": names[predictions.labels],
                "prediction": names[predictions.predictions],
                "probability": predictions.probabilities,
            }
        )


def _points(epoch: Epoch) -> dict[str, float]:
    values = (epoch.training.loss, epoch.training.accuracy, epoch.val_loss, epoch.val_accuracy, epoch.stage)
    return dict(zip(CURVES, values, strict=True))


def _scores(predictions: ImagePredictions, accuracy: Interval) -> dict[str, float]:
    scores = asdict(score_predictions(predictions.labels, predictions.predictions))
    interval = {"test/accuracy_low": accuracy.low, "test/accuracy_high": accuracy.high}
    return {f"test/{name}": value for name, value in scores.items()} | interval


def fingerprint_of(labels: Iterable[str], content_hashes: Iterable[str]) -> str:
    """Return a hash that tells test parts apart: of their images and labels, in order."""
    lines = [f"{label}:{content_hash}" for label, content_hash in zip(labels, content_hashes, strict=True)]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _test_images(dataset: ImageDataset, split: ClassSplit) -> str:
    labels = [dataset.class_names[dataset.labels[row]] for row in split.test]
    return fingerprint_of(labels, [dataset.content_hashes[row] for row in split.test])
