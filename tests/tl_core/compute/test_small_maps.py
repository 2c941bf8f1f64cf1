"""Convolutions as matrix products: the same maps and the same gradients, and nothing else touched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.compute import small_maps
from tl_core.compute.small_maps import matrix_convolutions
from tl_core.networks.backbones import BackboneSpec, build_backbone

GEOMETRIES = [  # side, kernel, stride, padding
    (4, 3, 1, 1),
    (8, 3, 2, 1),
    (7, 3, 2, 1),
    (11, 3, 3, 0),
    (8, 5, 1, 2),
    (4, 3, 1, 2),
    (2, 3, 1, 4),
    (4, 4, 4, 0),
    (2, 3, 1, 1),
    (1, 3, 1, 1),
]


@pytest.fixture(autouse=True)
def _also_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(small_maps.MAX_POSITIONS, torch.float64, 100)


def convolve(
    images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, as_matrix: bool
) -> tuple[Tensor, ...]:
    """Output and the gradients of images, weight and bias under a gradient that is the same for both ways."""
    inputs = [tensor.clone().requires_grad_() for tensor in (images, weight, bias)]
    if as_matrix:
        with matrix_convolutions():
            maps = F.conv2d(inputs[0], inputs[1], inputs[2], stride, padding)
        assert "MatrixConvolution" in _ancestors(maps)
    else:
        maps = F.conv2d(inputs[0], inputs[1], inputs[2], stride, padding)
    upstream = torch.linspace(-1, 1, maps.numel(), dtype=maps.dtype).view(maps.shape)
    return (maps, *torch.autograd.grad(maps, inputs, upstream))


def _ancestors(maps: Tensor) -> str:
    assert maps.grad_fn is not None
    return " ".join([maps.grad_fn.name(), *(node.name() for node, _ in maps.grad_fn.next_functions if node)])


@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), GEOMETRIES)
def test_maps_and_gradients_are_those_of_conv2d(side: int, kernel: int, stride: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(side)
    images = torch.randn(3, 5, side, side + 1, generator=generator, dtype=torch.float64)
    weight = torch.randn(7, 5, kernel, kernel, generator=generator, dtype=torch.float64)
    bias = torch.randn(7, generator=generator, dtype=torch.float64)
    ours = convolve(images, weight, bias, stride, padding, as_matrix=True)
    theirs = convolve(images, weight, bias, stride, padding, as_matrix=False)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 1),
    ],
    ids=["groups", "dilation", "same", "1x1"],
)
def test_other_convolutions_are_left_alone(layer: nn.Conv2d) -> None:
    images = torch.rand(2, 4, 4, 4)
    with matrix_convolutions():
        maps = layer(images)
    assert "MatrixConvolution" not in _ancestors(maps)
    assert torch.equal(maps, layer(images))


def test_large_maps_are_left_alone() -> None:
    with matrix_convolutions():
        maps = nn.Conv2d(3, 4, 3, padding=1)(torch.rand(1, 3, 16, 16))
    assert "MatrixConvolution" not in _ancestors(maps)


def test_under_autocast_the_product_is_in_the_lower_precision() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1)
    images = torch.rand(2, 8, 4, 4)
    with matrix_convolutions(), torch.autocast("cpu", torch.bfloat16):
        maps = layer(images)
    assert maps.dtype == torch.bfloat16
    torch.testing.assert_close(maps.float(), layer(images), rtol=0.05, atol=0.05)
    maps.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


def test_a_whole_backbone_gives_the_same_gradients() -> None:
    backbone = build_backbone(BackboneSpec("resnet10_fine", 32), seed=0).double().train()
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    backbone(images).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}
    backbone.zero_grad()
    with matrix_convolutions():
        features = backbone(images)
    features.square().sum().backward()
    for name, parameter in backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-8, atol=1e-10)
