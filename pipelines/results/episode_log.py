"""Episodes in MLflow: one nested run each, and on the parent the numbers that count."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.inputs.artifacts import RECIPE_ARTIFACT
from pipelines.results.figures import draw_distribution
from pipelines.results.nearest import Neighbours
from pipelines.results.predictions import log_answers, table_of_answers
from pipelines.results.scores import EPISODES_ARTIFACT, HARDEST_ARTIFACT
from pipelines.store.child_runs import ChildRuns, FinishedRun
from pipelines.store.journal import append_journal, read_journal
from pipelines.store.logging import log_drawing, log_series
from tl_core.data.dataset import ImageDataset
from tl_core.data.episodes import Episode, EpisodePool
from tl_core.data.splits import Indices
from tl_core.fewshot.metrics import METRICS
from tl_core.fewshot.results import EpisodeResult
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import Estimate, RunningEstimate, estimate
from tl_core.scoring.images import Interval, bootstrap
from tl_core.training.staged import ImagePredictions

FeaturesOf = Callable[[Indices], NDArray[np.float32]]


class EpisodeLog:
    """Collects the episodes of the active run; `close` writes what is known of all of them together.

    Each result is also appended to a journal, from which a repeated command takes what is already done.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        pool: EpisodePool,
        shape: EpisodeShape,
        seed: int,
        recipe: FinetuneRecipe,
        journal: Path,
    ) -> None:
        self._runs = ChildRuns("episode")
        self._dataset = dataset
        self._results: list[EpisodeResult] = []
        self._accuracy = RunningEstimate()
        self._journal = journal
        # What makes two runs comparable: the same pool, seed and shape give the same episodes.
        mlflow.set_tags({"episodes": json.dumps({"pool": pool.fingerprint, "seed": seed, **asdict(shape)})})
        mlflow.log_dict(asdict(recipe), RECIPE_ARTIFACT)

    def accuracy(self) -> Estimate:
        """Mean accuracy so far."""
        return self._accuracy.estimate()

    def replay(self, episodes: Iterable[Episode]) -> int:
        """Record the first episodes from the journal of an interrupted process; returns how many those are."""
        for result in read_journal(self._journal, episodes):
            self._record(result)
        return len(self._results)

    def add(self, result: EpisodeResult) -> None:
        """Record one episode as a nested run."""
        append_journal(self._journal, result)
        self._record(result)

    def _record(self, result: EpisodeResult) -> None:
        self._results.append(result)
        self._accuracy.add(result.accuracy)
        end = time.time()
        # Classes and seed as tags, which are written together with the run: params would be one more query for each.
        tags = {"classes": ", ".join(self._classes_of(result)), "seed": str(result.episode.seed)}
        metrics = {f"query/{name}": value for name, value in result.metrics.items()}
        name = f"episode-{result.episode.index:04d}"
        self._runs.add(FinishedRun(name, end - result.seconds, end, metrics, tags))

    def close(self, features_of: FeaturesOf | None = None) -> tuple[Estimate, Interval]:
        """Log means, table and pictures; returns the accuracy over episodes and, with its own interval, over images.

        Args:
            features_of: from rows of the data set to features, to show nearest images beside mistakes.
        """
        self._runs.close()
        accuracy = self.accuracy()
        metrics: dict[str, float] = {"n_episodes": accuracy.n}
        for name in METRICS:
            metrics |= _summary(name, [result.metrics[name] for result in self._results])
        answers = _answers_of(self._results)
        neighbours_of = partial(self._neighbours_of, features_of) if features_of else None
        metrics["ece"] = log_answers(self._dataset, answers, "all episodes", neighbours_of)
        of_images = _accuracy_over_images(answers)
        metrics |= {
            "n_images": of_images.n,
            "accuracy_low": of_images.low,
            "accuracy_high": of_images.high,
            **self._count_fallbacks(),
        }
        mlflow.log_metrics(metrics)
        log_series({"episode/accuracy": [result.accuracy for result in self._results]})
        self._log_artifacts(accuracy)
        return accuracy, of_images

    def _count_fallbacks(self) -> dict[str, float]:
        """Count the episodes whose fine-tuning was taken back; nothing where there is none."""
        n_fell_back = sum(result.fell_back for result in self._results)
        if not n_fell_back:
            return {}
        print(
            f"warning: in {n_fell_back:,} of {len(self._results):,} episodes fine-tuning made the loss grow and was "
            "taken back: backbone and head of the start were scored; give a lower max_lr",
            file=sys.stderr,
        )
        return {"n_fell_back": n_fell_back}

    def _neighbours_of(self, features_of: FeaturesOf, position: int) -> Neighbours:
        """Return the support images of the episode that an answer belongs to, and the image itself."""
        ends = np.cumsum([len(result.labels) for result in self._results])
        number = int(np.searchsorted(ends, position, side="right"))
        episode = self._results[number].episode
        query = episode.query_rows[position - ends[number]]  # counted from the end
        rows = np.append(episode.support_rows, query)
        return Neighbours(self._dataset, rows, features_of(rows))

    def _log_artifacts(self, accuracy: Estimate) -> None:
        accuracies = [result.accuracy for result in self._results]
        log_drawing(partial(draw_distribution, accuracies, accuracy), "distribution.png")
        with tempfile.TemporaryDirectory() as folder:
            self._table().to_parquet(Path(folder, EPISODES_ARTIFACT))
            hardest = min(self._results, key=lambda result: result.accuracy)
            answers = _answers_of([hardest])
            mistakes = np.flatnonzero(answers.labels != answers.predictions)
            table_of_answers(self._dataset, answers, mistakes).to_parquet(Path(folder, HARDEST_ARTIFACT))
            mlflow.log_artifacts(folder)

    def _table(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "episode": [r.episode.index for r in self._results],
                "seed": [r.episode.seed for r in self._results],
                "classes": [self._classes_of(r) for r in self._results],
                **{name: [r.metrics[name] for r in self._results] for name in METRICS},
                "seconds": [r.seconds for r in self._results],
            }
        )

    def _classes_of(self, result: EpisodeResult) -> list[str]:
        return [self._dataset.class_names[i] for i in result.episode.class_ids]


def _answers_of(results: Sequence[EpisodeResult]) -> ImagePredictions:
    """Return the predictions for every query image of some episodes."""
    return ImagePredictions(
        rows=np.concatenate([result.episode.query_rows for result in results]),
        labels=np.concatenate([result.labels for result in results]),
        predictions=np.concatenate([result.predictions for result in results]),
        probabilities=np.concatenate([result.confidences for result in results]).astype(np.float32),
    )


def _summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the mean of a metric over episodes, with its confidence interval where there are several."""
    found = estimate(values)
    spread = {f"{name}_ci95": found.ci95, f"{name}_sd": found.sd} if found.n > 1 else {}
    return {name: found.mean, **spread}


def _accuracy_over_images(answers: ImagePredictions) -> Interval:
    """Mean accuracy of the query images, each over its episodes, with the interval that resampling them gives.

    Episodes of a small target share their images: more of them say nothing of images that are not there.
    """
    _, image = np.unique(answers.rows, return_inverse=True)
    right = answers.labels == answers.predictions
    return bootstrap(np.bincount(image, weights=right) / np.bincount(image))
