"""Episodes in MLflow: one nested run each, and on the parent the numbers that count."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param

from pipelines.figures import draw_confusion, draw_distribution
from pipelines.networks import RECIPE_ARTIFACT
from pipelines.tracking import child_tags, log_series
from tl_core.datasets import ImageDataset
from tl_core.episodes import EpisodePool
from tl_core.finetune import EpisodeResult
from tl_core.recipes import EpisodeShape, FinetuneRecipe
from tl_core.scoring import Estimate, count_confusions, estimate, score_predictions

EPISODES_ARTIFACT, CONFUSIONS_ARTIFACT = "episodes.parquet", "confusion.json"


class EpisodeLog:
    """Collects the episodes of the active run; `close` writes what is known of all of them together."""

    def __init__(
        self, dataset: ImageDataset, pool: EpisodePool, shape: EpisodeShape, seed: int, recipe: FinetuneRecipe
    ) -> None:
        run = mlflow.active_run()
        assert run is not None
        self._run = run
        self._client = mlflow.MlflowClient()
        self._class_names = dataset.class_names
        self._seed = seed
        self._results: list[EpisodeResult] = []
        # What makes two runs comparable: the same pool, seed and shape give the same episodes.
        mlflow.set_tags({"episodes": json.dumps({"pool": pool.fingerprint, "seed": seed, **asdict(shape)})})
        mlflow.log_dict(asdict(recipe), RECIPE_ARTIFACT)

    def accuracy(self) -> Estimate:
        """Mean accuracy so far."""
        return estimate([result.accuracy for result in self._results])

    def add(self, result: EpisodeResult) -> None:
        """Record one episode as a nested run."""
        self._results.append(result)
        end = int(time.time() * 1000)
        index = result.episode.index
        child = self._client.create_run(
            self._run.info.experiment_id,
            start_time=end - int(1000 * result.seconds),
            tags=child_tags(f"episode-{index:04d}", "episode"),
        )
        metrics = {"query/accuracy": result.accuracy, "query/loss": result.loss, "seconds": result.seconds}
        self._client.log_batch(
            child.info.run_id,
            metrics=[Metric(name, value, end, 0) for name, value in metrics.items()],
            params=[Param("classes", ", ".join(self._classes_of(result))), Param("seed", str(result.episode.seed))],
        )
        self._client.set_terminated(child.info.run_id, end_time=end)

    def close(self) -> Estimate:
        """Log the means with their intervals, the table of episodes and the pictures; returns the accuracy."""
        accuracy = self.accuracy()
        macro = [score_predictions(result.labels, result.predictions) for result in self._results]
        metrics = {"accuracy": accuracy.mean, "n_episodes": accuracy.n}
        if accuracy.n > 1:
            metrics |= {"accuracy_ci95": accuracy.ci95, "accuracy_sd": accuracy.sd}
        for name in ("precision", "recall", "f1"):
            metrics[f"macro_{name}"] = estimate([getattr(scores, name) for scores in macro]).mean
        mlflow.log_metrics(metrics)
        log_series({"episode/accuracy": [result.accuracy for result in self._results]})
        self._log_artifacts(accuracy)
        return accuracy

    def _log_artifacts(self, accuracy: Estimate) -> None:
        labels = np.concatenate([result.labels for result in self._results])
        predictions = np.concatenate([result.predictions for result in self._results])
        counts = count_confusions(labels, predictions, len(self._class_names))
        table = {"class_names": self._class_names, "counts": counts.tolist()}
        mlflow.log_dict(table, CONFUSIONS_ARTIFACT)
        mlflow.log_figure(draw_confusion(counts, self._class_names), "confusion.png")
        mlflow.log_figure(draw_distribution([r.accuracy for r in self._results], accuracy), "distribution.png")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, EPISODES_ARTIFACT)
            self._table().to_parquet(path)
            mlflow.log_artifact(str(path))

    def _table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "episode": [r.episode.index for r in self._results],
                "seed": [r.episode.seed for r in self._results],
                "classes": [self._classes_of(r) for r in self._results],
                "accuracy": [r.accuracy for r in self._results],
                "loss": [r.loss for r in self._results],
                "seconds": [r.seconds for r in self._results],
            }
        )

    def _classes_of(self, result: EpisodeResult) -> list[str]:
        return [self._class_names[i] for i in result.episode.class_ids]
