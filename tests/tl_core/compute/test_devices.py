"""In which precision a network is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tl_core.compute.devices import has_depthwise, pick_dtype
from tl_core.networks.backbones import BackboneSpec, build_backbone

CPU = torch.device("cpu")
PLAIN, DEPTHWISE = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 1)), nn.Sequential(nn.Conv2d(8, 16, 3, groups=8))


@pytest.mark.parametrize(
    ("architecture", "expected"), [("resnet10_small", False), ("tf_efficientnet_lite0", True), ("resnext26ts", False)]
)
def test_a_network_with_depthwise_convolutions_is_known(architecture: str, expected: bool) -> None:
    assert has_depthwise(build_backbone(BackboneSpec(architecture, 32), seed=0)) is expected


def test_groups_of_several_channels_and_one_channel_are_not_depthwise() -> None:
    assert not has_depthwise(nn.Conv2d(8, 8, 3, groups=2))
    assert not has_depthwise(PLAIN)
    assert has_depthwise(DEPTHWISE)


def test_auto_trains_depthwise_networks_in_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, there in (("amx_bf16", True), ("avx512_bf16", True), ("amx_bf16", False), ("avx512_f", True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=capability, value=there: {name: value})
        multiplies = there and "bf16" in capability
        assert pick_dtype("auto", CPU, PLAIN) == (torch.bfloat16 if multiplies else torch.float32)
        assert pick_dtype("auto", CPU, DEPTHWISE) == torch.float32


def test_what_is_asked_for_is_taken() -> None:
    assert pick_dtype("bfloat16", CPU, DEPTHWISE) == torch.bfloat16
    assert pick_dtype("float32", CPU, PLAIN) == torch.float32
