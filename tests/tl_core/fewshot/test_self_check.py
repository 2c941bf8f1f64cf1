"""The self-check: what it says of features that tell everything, and of features that tell nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import write_colour_images
from tl_core.data.dataset import load_dataset
from tl_core.errors import InputError
from tl_core.fewshot.self_check import N_EPISODES, check_features
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.episode import EpisodeShape

SPEC = BackboneSpec("pixels", 16)
SHAPE = EpisodeShape(n_way=3, n_shot=2, n_query=5)
CPU = torch.device("cpu")


def test_colours_are_told_apart_by_their_pixels(tmp_path: Path) -> None:
    novel = load_dataset(str(write_colour_images(tmp_path / "novel", n_per_class=8)), 16)
    results = check_features(build_backbone(SPEC, 0), SPEC, novel, SHAPE, 0, CPU)
    assert set(results) == {"nearest_centroid", "linear_probe"}
    assert all(result.n == N_EPISODES and result.mean > 0.99 for result in results.values())


def test_features_that_say_nothing_score_at_chance(tmp_path: Path) -> None:
    novel = load_dataset(str(write_colour_images(tmp_path / "novel", n_per_class=8)), 16)

    noise = torch.Generator().manual_seed(0)

    class Nothing(torch.nn.Module):
        """Features that are noise, and say nothing of the image."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(images), 4, generator=noise)

        def group_matcher(self, coarse: bool = False) -> dict[str, str]:
            return {}

    results = check_features(Nothing(), SPEC, novel, SHAPE, 0, CPU)
    assert all(abs(result.mean - 1 / 3) < 0.08 for result in results.values())


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    novel = load_dataset(str(write_colour_images(tmp_path / "novel", n_per_class=6)), 16)
    with pytest.raises(InputError, match="has 6 images"):
        check_features(build_backbone(SPEC, 0), SPEC, novel, SHAPE, 0, CPU)
