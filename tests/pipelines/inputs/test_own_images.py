"""Own images with the networks to choose from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.configs.data import OwnData
from pipelines.configs.network import ComparedNetworks
from pipelines.inputs import own_images
from pipelines.inputs.own_images import OwnImages, open_own_images


def opened(data: Path, **values: object) -> OwnImages:
    return open_own_images(OwnData(data=str(data)), ComparedNetworks(**values), seed=0)


def sizes(images: OwnImages) -> list[int]:
    return [network.spec.image_size for network in images.networks.values()]


def test_the_embedded_weights_are_the_default_at_three_sizes(colours: Path) -> None:
    images = opened(colours)
    assert list(images.networks) == ["embedded at 64 px", "embedded at 128 px", "embedded at 224 px"]
    assert sizes(images) == [network.dataset.images.shape[1] for network in images.networks.values()] == [64, 128, 224]
    assert images.notices == ()


def test_large_sizes_are_left_out_of_many_images_and_that_is_said(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_images, "MOST_PIXELS", 60 * 128**2)
    images = opened(colours)
    assert sizes(images) == [64, 128]
    assert "224 pixels a side were not tried, since there are 60 images; give image_size=224" in images.notices[0]


def test_a_size_that_is_given_is_the_only_one(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_images, "MOST_PIXELS", 1)
    images = opened(colours, weights="embedded,pixels", image_size=96)
    assert list(images.networks) == ["embedded at 96 px", "pixels at 96 px"]
    assert images.notices == ()


def test_baselines_alone_are_called_what_they_are(colours: Path) -> None:
    images = opened(colours, weights="pixels,random")
    assert sizes(images) == [32, 32]
    assert images.notices[0].startswith("these weights know no other images")
