"""What one episode gave: the answers to its query images, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tl_core.data.episodes import Episode


@dataclass(frozen=True)
class EpisodeResult:
    """What one episode gave.

    Attributes:
        labels, predictions: int64 (n_way * n_query,), as labels of the dataset, not of the episode.
        confidences: float64 (n_way * n_query,), the probability of each prediction.
        accuracy, loss: on the query images; the loss is the mean cross-entropy.
    """

    episode: Episode
    accuracy: float
    loss: float
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float64]
    seconds: float


def score_episode(episode: Episode, logits: Tensor, seconds: float) -> EpisodeResult:
    """What the logits of an episode's query images are worth.

    Args:
        logits: float (n_way * n_query, n_way), on the CPU.
        seconds: that the episode took.
    """
    labels = torch.from_numpy(episode.query_labels)
    probabilities = logits.double().softmax(1)
    predictions = logits.argmax(1)
    class_ids = np.array(episode.class_ids, dtype=np.int64)
    return EpisodeResult(
        episode=episode,
        accuracy=float((predictions == labels).double().mean()),
        loss=float(F.cross_entropy(logits, labels)),
        labels=class_ids[episode.query_labels],
        predictions=class_ids[predictions.numpy()],
        confidences=probabilities.amax(1).numpy(),
        seconds=seconds,
    )
