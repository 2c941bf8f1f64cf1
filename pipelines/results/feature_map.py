"""Feature map of one episode's images in two dimensions, before and after fine-tuning."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from pipelines.results.thumbnails import thumbnail
from pipelines.store.artifacts import fetch_artifact

if TYPE_CHECKING:
    from tl_core.data.episodes import Episode
    from tl_core.fewshot.finetuner import Finetuner
    from tl_core.recipes.finetune import FinetuneRecipe

FEATURES_ARTIFACT = "features.parquet"
MOST_CLASSES = 7
"""Classes of the episode that are shown: as many colours can be told apart."""
_MOST_QUERIES = 6  # of each class: a map of more is a heap


def log_feature_map(finetuner: Finetuner, episode: Episode, recipe: FinetuneRecipe) -> None:
    """Keep the map of an episode with the active run: one row per image, its places, class and picture."""
    before, after = finetuner.features_around(episode, recipe)
    rows = np.concatenate([episode.support_rows, episode.query_rows])
    labels = np.concatenate([episode.support_labels, episode.query_labels])
    is_support = np.arange(len(rows)) < len(episode.support_rows)
    rank = pd.Series(labels).groupby([labels, is_support]).cumcount().to_numpy()
    shown = (labels < MOST_CLASSES) & (is_support | (rank < _MOST_QUERIES))
    dataset = finetuner.dataset
    columns: dict[str, object] = {
        "label": [dataset.class_names[label] for label in dataset.labels[rows[shown]]],
        "support": is_support[shown],
        "jpeg": [thumbnail(dataset.images[row]) for row in rows[shown]],
    }
    for name, features in (("before", before), ("after", after)):
        if features is not None:
            columns |= dict(zip((f"x_{name}", f"y_{name}"), principal_components(features[shown]).T, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FEATURES_ARTIFACT)
        pd.DataFrame(columns).to_parquet(path)
        mlflow.log_artifact(str(path))


def principal_components(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """First two principal components (Pearson, 1901): (n, d) with n, d >= 2 to (n, 2), scaled into the unit square."""
    if not np.ptp(features, axis=0).any():  # without any spread there are no components
        return np.zeros((len(features), 2))
    places: NDArray[np.float64] = PCA(2, svd_solver="full").fit_transform(features.astype(np.float64))
    places -= places.min(axis=0)
    return places / float(places.max())


def read_feature_map(run_id: str) -> pd.DataFrame:
    """The map of a finetune run: label, support, jpeg, x_before, y_before, and where it was trained x_after, y_after.

    Raises:
        InputError: the run has none.
    """
    return pd.read_parquet(fetch_artifact(run_id, FEATURES_ARTIFACT))
