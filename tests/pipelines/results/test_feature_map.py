"""The map of an episode: principal components, and what of the episode is shown."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from pipelines.results.feature_map import log_feature_map, principal_components, read_feature_map
from tl_core.data.dataset import load_dataset
from tl_core.data.episodes import build_pool, sample_episode
from tl_core.fewshot.finetuner import Finetuner
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_the_places_are_the_first_two_principal_components() -> None:
    features = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32) * np.arange(8, 0, -1)
    known = PCA(2).fit_transform(features)
    places = principal_components(features.astype(np.float32))
    for axis in range(2):
        assert abs(np.corrcoef(places[:, axis], known[:, axis])[0, 1]) == pytest.approx(1)
    assert places.min() == 0
    assert places.max() == 1
    assert np.ptp(places[:, 1]) / np.ptp(places[:, 0]) == pytest.approx(np.ptp(known[:, 1]) / np.ptp(known[:, 0]))


def test_images_that_are_all_alike_lie_in_one_place() -> None:
    assert (principal_components(np.ones((5, 3), dtype=np.float32)) == 0).all()


@pytest.mark.parametrize(("freeze_depth", "maps"), [(1.0, {"x_before"}), (0.5, {"x_before", "x_after"})])
def test_the_map_has_support_and_queries_with_their_classes(
    colours: Path, store: str, freeze_depth: float, maps: set[str]
) -> None:
    dataset = load_dataset(str(colours), 16)
    spec = BackboneSpec("resnet10_small", 16)
    finetuner = Finetuner(build_backbone(spec, seed=0), spec, dataset, torch.device("cpu"))
    episode = sample_episode(build_pool(dataset, "all"), EpisodeShape(3, 4, 8), seed=0, index=0)
    with mlflow.start_run() as run:
        log_feature_map(finetuner, episode, FinetuneRecipe(freeze_depth=freeze_depth, steps=2))
    table = read_feature_map(run.info.run_id)
    assert {name for name in table if str(name).startswith("x_")} == maps
    assert table["support"].sum() == 12
    assert table[~table["support"]]["label"].value_counts().to_dict() == {"red": 6, "green": 6, "blue": 6}
    if freeze_depth == 1.0:  # one colour lies with itself, far from the others
        places = table[["x_before", "y_before"]].to_numpy()
        centres = table.groupby("label")[["x_before", "y_before"]].mean()
        distances = np.linalg.norm(places[:, None] - centres.to_numpy()[None], axis=2)
        assert (centres.index.to_numpy()[distances.argmin(axis=1)] == table["label"]).mean() > 0.9
