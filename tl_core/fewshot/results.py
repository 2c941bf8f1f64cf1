"""Result of one episode: its metrics, and the predictions for its query images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from tl_core.data.episodes import Episode
from tl_core.fewshot.metrics import METRICS


@dataclass(frozen=True)
class EpisodeResult:
    """Result of one episode.

    Attributes:
        metrics: by the names of `METRICS`, on the query images.
        labels, predictions: int64 (n_way * n_query,), as labels of the dataset, not of the episode.
        confidences: float64 (n_way * n_query,), the probability of each prediction.
        fell_back: whether fine-tuning was taken back, as it had made the loss on the support images grow.
    """

    episode: Episode
    metrics: Mapping[str, float]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float64]
    seconds: float
    fell_back: bool = False

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return self.metrics["accuracy"]

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return self.metrics["loss"]


def score_episode(episode: Episode, logits: Tensor, seconds: float, fell_back: bool = False) -> EpisodeResult:
    """Score an episode's query logits.

    Args:
        logits: float (n_way * n_query, n_way), on the CPU.
        seconds: that the episode took.
        fell_back: as in `EpisodeResult`.
    """
    labels = from_numpy(episode.query_labels)
    class_ids = np.array(episode.class_ids, dtype=np.int64)
    return EpisodeResult(
        episode=episode,
        metrics={name: metric(logits, labels) for name, metric in METRICS.items()},
        labels=class_ids[episode.query_labels],
        predictions=class_ids[logits.argmax(1).numpy()],
        confidences=logits.double().softmax(1).amax(1).numpy(),
        seconds=seconds,
        fell_back=fell_back,
    )
