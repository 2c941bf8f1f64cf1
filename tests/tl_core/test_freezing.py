"""Freezing: the cut changes nothing, and what is frozen stays as it is to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from tl_core.backbones import BackboneSpec, build_backbone, n_features
from tl_core.freezing import SplitBackbone, split_backbone
from tl_core.training import FitOptions, fit, start_training

SPECS = (
    BackboneSpec("resnet10", 32),
    BackboneSpec("resnet10_small", 16),
    BackboneSpec("resnet18", 32),
    BackboneSpec("vgg11", 32),
    BackboneSpec("vit_tiny_patch16_224", 64),
    BackboneSpec("convnext_atto", 32),
    BackboneSpec("mobilenetv3_small_100", 32),
    BackboneSpec("tf_efficientnet_lite0", 32),
    BackboneSpec("pixels", 16),
)
TRAINABLE = SPECS[:-1]
DEPTHS = (0.0, 0.3, 0.5, 0.8, 1.0)

with_weights = pytest.mark.parametrize("built", TRAINABLE, indirect=True, ids=lambda spec: spec.architecture)

Built = tuple[BackboneSpec, nn.Module]


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.architecture)
def built(request: pytest.FixtureRequest) -> Built:
    """Every backbone, built once: splitting it leaves its weights alone."""
    return request.param, build_backbone(request.param, seed=0)


def random_images(n: int, spec: BackboneSpec) -> Tensor:
    return torch.rand(n, 3, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(n))


def depth_groups(backbone: nn.Module) -> list[list[str]]:
    """Names of the parameters by depth, as timm itself orders them."""
    if not list(backbone.parameters()):
        return []
    groups = group_parameters(backbone, backbone.group_matcher(coarse=True))
    return [groups[depth] for depth in sorted(groups)]


def train_a_little(split: SplitBackbone, spec: BackboneSpec, width: int, weight_decay: float) -> None:
    """Three large Adam steps: they move every parameter whose gradient is not exactly zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(width, 3)
    options = FitOptions(1, 3, 1e-2, "adamw", weight_decay=weight_decay, batch_statistics=False)
    network = nn.Sequential(split.suffix, head)

    def batches(_: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(3):
            yield split.prefix(random_images(6, spec)).detach(), torch.tensor([0, 1, 2, 0, 1, 2])

    list(fit(start_training(network, options), batches, options))


@pytest.mark.parametrize("freeze_depth", DEPTHS)
def test_the_two_halves_together_are_the_backbone_at_any_batch_size(built: Built, freeze_depth: float) -> None:
    spec, backbone = built
    split = split_backbone(backbone, freeze_depth)
    for n in (1, 5):
        images = random_images(n, spec)
        with torch.no_grad():
            torch.testing.assert_close(
                split.suffix(split.prefix(images)), backbone.eval()(images), rtol=1e-5, atol=1e-5
            )


def test_a_larger_depth_freezes_more_groups_from_none_to_all(built: Built) -> None:
    spec, backbone = built
    splits = [split_backbone(backbone, depth) for depth in DEPTHS]
    n_groups = len(depth_groups(backbone))
    assert [split.n_groups for split in splits] == [n_groups] * len(DEPTHS)
    frozen = [split.n_frozen for split in splits]
    assert frozen == sorted(frozen)
    assert (frozen[0], frozen[-1]) == (0, n_groups)
    if spec.architecture != "pixels":
        assert len(set(frozen)) >= 4


@pytest.mark.parametrize("freeze_depth", DEPTHS)
def test_exactly_the_groups_after_the_cut_want_gradients(built: Built, freeze_depth: float) -> None:
    _, backbone = built
    split = split_backbone(backbone, freeze_depth)
    trained = {name for group in depth_groups(backbone)[split.n_frozen :] for name in group}
    assert {name for name, p in backbone.named_parameters() if p.requires_grad} == trained


@pytest.mark.parametrize("freeze_depth", DEPTHS)
def test_what_wants_gradients_is_in_the_suffix_and_not_in_the_prefix(built: Built, freeze_depth: float) -> None:
    _, backbone = built
    split = split_backbone(backbone, freeze_depth)
    wanted = {id(p) for p in backbone.parameters() if p.requires_grad}
    assert wanted <= {id(p) for p in split.suffix.parameters()}
    assert wanted.isdisjoint(id(p) for p in split.prefix.parameters())


@with_weights
@pytest.mark.parametrize("freeze_depth", [0.3, 0.5, 0.8, 1.0])
def test_frozen_parameters_and_every_buffer_are_bit_identical_after_training(built: Built, freeze_depth: float) -> None:
    spec, backbone = copy.deepcopy(built)
    split = split_backbone(backbone, freeze_depth)
    frozen = {name for group in depth_groups(backbone)[: split.n_frozen] for name in group}
    before = copy.deepcopy(backbone.state_dict())
    train_a_little(split, spec, n_features(backbone, spec), weight_decay=0.1)
    after = backbone.state_dict()
    buffers = {name for name, _ in backbone.named_buffers()}
    assert frozen
    assert [name for name in sorted(frozen | buffers) if not torch.equal(after[name], before[name])] == []


@with_weights
def test_full_fine_tuning_moves_every_depth_group(built: Built) -> None:
    spec, backbone = copy.deepcopy(built)
    before = copy.deepcopy(backbone.state_dict())
    train_a_little(split_backbone(backbone, 0.0), spec, n_features(backbone, spec), weight_decay=0.0)
    after = backbone.state_dict()
    for group in depth_groups(backbone):
        assert any(not torch.equal(after[name], before[name]) for name in group), group


@with_weights
def test_half_frozen_training_moves_every_group_after_the_cut(built: Built) -> None:
    spec, backbone = copy.deepcopy(built)
    split = split_backbone(backbone, 0.5)
    before = copy.deepcopy(backbone.state_dict())
    train_a_little(split, spec, n_features(backbone, spec), weight_decay=0.0)
    after = backbone.state_dict()
    for group in depth_groups(backbone)[split.n_frozen :]:
        assert any(not torch.equal(after[name], before[name]) for name in group), group


def test_a_cut_can_be_moved_back_and_forth() -> None:
    spec = BackboneSpec("resnet10_small", 16)
    backbone = build_backbone(spec, seed=0)
    for freeze_depth in (1.0, 0.0, 0.5, 0.0):
        split = split_backbone(backbone, freeze_depth)
    assert split.n_frozen == 0
    assert all(p.requires_grad for p in backbone.parameters())
