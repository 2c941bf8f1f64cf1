"""Freezing: the cut changes nothing, and what is frozen stays as it is to the last bit."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator

import pytest
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from tl_core.freezing.split import SplitBackbone, split_backbone
from tl_core.networks.backbones import BackboneSpec, StageFeatures, build_backbone, n_features
from tl_core.training.loop import fit, start_training
from tl_core.training.optimizers import FitOptions

SPECS = (
    BackboneSpec("resnet10", 16),
    BackboneSpec("resnet10_small", 16),
    BackboneSpec("resnet10_small", 16, features="stages"),
    BackboneSpec("test_convnext", 32, features="stages"),  # its last stage is not its last layer
    BackboneSpec("fasternet_t0", 32, features="stages"),  # three stages
    BackboneSpec("resnet18", 16),
    BackboneSpec("resnet9", 16),
    BackboneSpec("vgg11", 32),
    BackboneSpec("vit_tiny_patch16_224", 64),
    BackboneSpec("convnext_atto", 32),
    BackboneSpec("mobilenetv3_small_100", 32),
    BackboneSpec("tf_efficientnet_lite0", 32),
    BackboneSpec("pixels", 16),
)
TRAINABLE = SPECS[:-1]
DEPTHS = (0.0, 0.3, 0.5, 0.8, 1.0)

Built = tuple[BackboneSpec, nn.Module]


def name_of(spec: BackboneSpec) -> str:
    return f"{spec.architecture}-{spec.features}"


with_weights = pytest.mark.parametrize(
    "built", TRAINABLE, indirect=True, ids=lambda spec: f"{spec.architecture}-{spec.features}"
)

Cut = tuple[BackboneSpec, nn.Module, SplitBackbone]


@functools.cache
def build_once(spec: BackboneSpec) -> nn.Module:
    return build_backbone(spec, seed=0)


@pytest.fixture(scope="module", params=SPECS, ids=name_of)
def built(request: pytest.FixtureRequest) -> Built:
    """Every backbone: splitting it leaves its weights alone."""
    return request.param, build_once(request.param)


@pytest.fixture(scope="module", params=DEPTHS)
def cut(request: pytest.FixtureRequest, built: Built) -> Cut:
    """Every backbone at every depth, cut once."""
    spec, backbone = copy.deepcopy(built)
    return spec, backbone, split_backbone(backbone, request.param)


def random_images(n: int, spec: BackboneSpec) -> Tensor:
    return torch.rand(n, 3, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(n))


def depth_groups(backbone: nn.Module) -> list[list[str]]:
    """Names of the parameters by depth, as timm itself orders them, without those that the output does not need."""
    if not list(backbone.parameters()):
        return []
    prefix = "network." if isinstance(backbone, StageFeatures) else ""
    network = backbone.network if isinstance(backbone, StageFeatures) else backbone
    groups = group_parameters(network, network.group_matcher(coarse=True))
    unused = backbone.unused if isinstance(backbone, StageFeatures) else ()
    kept = ([prefix + name for name in groups[depth] if name not in unused] for depth in sorted(groups))
    return [group for group in kept if group]


def train_a_step(split: SplitBackbone, spec: BackboneSpec, width: int) -> None:
    """One large Adam step: it moves every parameter whose gradient is not exactly zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(width, 3)
    options = FitOptions(1, 1, 1e-2, "adam", batch_statistics=False)
    network = nn.Sequential(split.suffix, head)

    def batches(_: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield split.prefix(random_images(3, spec)).detach(), torch.tensor([0, 1, 2])

    list(fit(start_training(network, options), batches, options))


@torch.no_grad()
def test_the_two_halves_together_are_the_backbone_at_any_batch_size(cut: Cut) -> None:
    spec, backbone, split = cut
    for n in (1, 3):
        images = random_images(n, spec)
        torch.testing.assert_close(split.suffix(split.prefix(images)), backbone.eval()(images), rtol=1e-5, atol=1e-5)


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


def test_exactly_the_groups_after_the_cut_want_gradients(cut: Cut) -> None:
    _, backbone, split = cut
    trained = {name for group in depth_groups(backbone)[split.n_frozen :] for name in group}
    assert {name for name, p in backbone.named_parameters() if p.requires_grad} == trained


def test_the_prefix_holds_all_that_is_frozen_and_the_suffix_all_that_is_trained(cut: Cut) -> None:
    spec, backbone, split = cut
    frozen = {id(p) for p in backbone.parameters() if not p.requires_grad}
    trained = {id(p) for p in backbone.parameters() if p.requires_grad}
    prefix, suffix = ({id(p) for p in part.parameters()} for part in (split.prefix, split.suffix))
    assert prefix <= frozen
    assert trained <= suffix
    if spec.features == "last":  # otherwise several stages cross a deep cut, and only an earlier one is narrow enough
        assert suffix == trained


@with_weights
@pytest.mark.parametrize("freeze_depth", [0.0, 0.5, 0.8, 1.0])
def test_training_moves_every_group_after_the_cut_and_not_a_bit_before_it(built: Built, freeze_depth: float) -> None:
    spec, backbone = copy.deepcopy(built)
    split = split_backbone(backbone, freeze_depth)
    groups = depth_groups(backbone)
    before = copy.deepcopy(backbone.state_dict())
    train_a_step(split, spec, n_features(backbone, spec))
    moved = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    frozen = {name for group in groups[: split.n_frozen] for name in group}
    buffers = {name for name, _ in backbone.named_buffers()}
    assert moved & (frozen | buffers) == set()
    assert [group for group in groups[split.n_frozen :] if not moved & set(group)] == []


def test_a_network_whose_depth_timm_does_not_know_is_cut_in_the_order_of_its_parts() -> None:
    spec = BackboneSpec("poolformerv2_s12", 32)
    backbone = build_backbone(spec, seed=0)
    assert not hasattr(backbone, "group_matcher")
    split = split_backbone(backbone, 0.5)
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert (split.n_frozen, split.n_groups) == (3, 6)  # stem, four stages, norm
    assert {name.split(".")[1] for name in trained if name.startswith("stages")} == {"2", "3"}
    assert not any(name.startswith("stem") for name in trained)


def test_a_network_that_cannot_be_traced_is_frozen_without_a_cut() -> None:
    spec = BackboneSpec("ese_vovnet19b_dw", 32, features="stages")
    backbone = build_backbone(spec, seed=0)
    split = split_backbone(backbone, 0.5)
    assert isinstance(split.prefix, nn.Identity)
    frozen = {name: value.clone() for name, value in backbone.named_parameters() if not value.requires_grad}
    statistics = {name: value.clone() for name, value in backbone.named_buffers()}
    assert 0 < len(frozen) < len(list(backbone.parameters()))
    train_a_step(split, spec, n_features(backbone, spec))
    assert all(torch.equal(value, frozen[name]) for name, value in backbone.named_parameters() if name in frozen)
    assert all(torch.equal(value, statistics[name]) for name, value in backbone.named_buffers())


def test_a_cut_can_be_moved_back_and_forth() -> None:
    spec = BackboneSpec("resnet10_small", 16)
    backbone = build_backbone(spec, seed=0)
    for freeze_depth in (1.0, 0.0, 0.5, 0.0):
        split = split_backbone(backbone, freeze_depth)
    assert split.n_frozen == 0
    assert all(p.requires_grad for p in backbone.parameters())
