"""Backbones: built by name, from a seed, at a size that they can work at."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from tl_core.errors import InputError
from tl_core.heads.storage import load_backbone, save_backbone
from tl_core.networks.backbones import N_STAGES, BackboneSpec, build_backbone, n_features, with_features

SMALL = BackboneSpec("resnet10_small", 16)


@pytest.mark.parametrize("name", ["resnet10", "resnet10_small", "resnet9", "pixels"])
def test_our_own_architectures_are_in_timms_registry(name: str) -> None:
    assert timm.is_model(name)


@pytest.mark.parametrize(
    ("spec", "width"),
    [
        (BackboneSpec("resnet10", 32), 512),
        (SMALL, 256),
        (BackboneSpec("pixels", 32), 192),
        (BackboneSpec("pixels", 8), 192),
        (BackboneSpec("vit_tiny_patch16_224", 64), 192),
    ],
    ids=lambda value: f"{value.architecture}-{value.image_size}" if isinstance(value, BackboneSpec) else str(value),
)
def test_a_backbone_gives_one_feature_vector_per_image(spec: BackboneSpec, width: int) -> None:
    backbone = build_backbone(spec, seed=0)
    with torch.no_grad():
        features = backbone(torch.rand(3, 3, spec.image_size, spec.image_size))
    assert features.shape == (3, width)
    assert n_features(backbone, spec) == width


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (build_backbone(SMALL, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights() -> None:
    first, second = (build_backbone(SMALL, seed=seed).state_dict()["conv1.weight"] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    build_backbone(SMALL, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    with pytest.raises(InputError, match=r"got 'resnet10_smal'; near are .*resnet10_small"):
        build_backbone(BackboneSpec("resnet10_smal", 32), seed=0)


def test_an_unknown_name_with_nothing_near_is_refused_without_a_hint() -> None:
    with pytest.raises(InputError) as caught:
        build_backbone(BackboneSpec("?" * 40, 32), seed=0)
    assert "near are" not in str(caught.value)


def test_inception_is_refused_at_32_pixels_in_one_sentence() -> None:
    with pytest.raises(InputError) as caught:
        build_backbone(BackboneSpec("inception_v3", 32), seed=0)
    message = str(caught.value)
    assert message.startswith("inception_v3 cannot work on 32 x 32 images (")
    assert message.endswith("give a larger image_size")
    assert "\n" not in message


def test_vgg16_comes_without_its_dense_weights() -> None:
    spec = BackboneSpec("vgg16", 32)
    backbone = build_backbone(spec, seed=0)
    assert sum(parameter.numel() for parameter in backbone.parameters()) < 20_000_000
    assert n_features(backbone, spec) == 512


def test_pixels_are_the_picture_averaged_to_eight_by_eight() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    by_hand = images.view(2, 3, 8, 2, 8, 2).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(build_backbone(BackboneSpec("pixels", 16), seed=0)(images), by_hand)


def test_asking_for_the_width_leaves_the_batch_norm_statistics_alone() -> None:
    backbone = build_backbone(SMALL, seed=0).train()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    n_features(backbone, SMALL)
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet10_small", "resnet18", "resnet50", "regnety_002"])
def test_every_convolution_of_an_untrained_network_takes_part_in_its_features(name: str) -> None:
    backbone = build_backbone(BackboneSpec(name, 32), seed=0).eval()
    images = torch.rand(2, 3, 32, 32)
    features = backbone(images)
    convolutions = {n: m for n, m in backbone.named_modules() if isinstance(m, torch.nn.Conv2d)}
    for weight in (module.weight for module in convolutions.values()):
        kept = weight.clone()
        weight.zero_()
        assert not torch.equal(backbone(images), features)
        weight.copy_(kept)


@pytest.mark.parametrize("name", ["resnet10_small", "vgg11", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_stage_features_are_the_rooted_means_of_the_last_stages(name: str) -> None:
    plain = build_backbone(BackboneSpec(name, 32), seed=0)
    network, spec = with_features(plain, BackboneSpec(name, 32), "stages")
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = network.eval()(images)
        maps = plain.forward_intermediates(images, indices=N_STAGES, intermediates_only=True)  # type: ignore[operator]
    parts = features.split([stage.shape[1] for stage in maps], dim=1)
    for part, stage in zip(parts, maps, strict=True):
        means = stage.mean((2, 3))
        assert torch.equal(part.sign(), means.sign())
        shares = means.abs() / means.abs().sum(1, keepdim=True)
        assert torch.allclose(part.square(), shares, atol=1e-5)
    assert spec == BackboneSpec(name, 32, features="stages")
    assert n_features(network, spec) == features.shape[1]


def test_stage_features_of_a_network_without_stages_are_refused() -> None:
    spec = BackboneSpec("pixels", 32)
    with pytest.raises(InputError, match="pixels does not show its stages; give last"):
        with_features(build_backbone(spec, seed=0), spec, "stages")


def test_a_backbone_with_stage_features_is_rebuilt_from_its_files(tmp_path: Path) -> None:
    spec = BackboneSpec("resnet10_small", 32, features="stages")
    network = build_backbone(spec, seed=0)
    save_backbone(network, spec, tmp_path)
    loaded, loaded_spec = load_backbone(tmp_path)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), network.eval()(images))
    assert loaded_spec == spec


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "levit_128s", "mixer_s32_224", "pit_ti_224", "maxvit_pico_rw_256", "resnet50_clip"]
)
def test_a_network_for_one_size_is_built_for_the_size_asked_for(name: str) -> None:
    spec = BackboneSpec(name, 64)
    backbone = build_backbone(spec, seed=0).eval()
    with torch.no_grad():
        assert backbone(torch.rand(2, 3, 64, 64)).shape == (2, n_features(backbone, spec))
