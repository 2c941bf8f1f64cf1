"""Backbones that timm does not have, registered with it so that one code path builds them all."""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_GRID = 8


@register_model
def resnet10(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ARG001 - timm's interface
    """ResNet-10: one basic block per stage (Simon et al., 2016), the few-shot literature's usual backbone."""
    network: nn.Module = ResNet(BasicBlock, layers=(1, 1, 1, 1), **_architecture_options(kwargs))
    return network


@register_model
def resnet10_fine(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ARG001 - timm's interface
    """ResNet-10 for small pictures: a 3 x 3 stem and no pooling after it, so that every map has twice the side.

    The usual stem shrinks 64 pixels to a 2 x 2 map, where convolutions see mostly padding.
    """
    return _resnet10_fine((64, 128, 256, 512), kwargs)


@register_model
def resnet10_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ARG001 - timm's interface
    """`resnet10_fine` with half the channels."""
    return _resnet10_fine((32, 64, 128, 256), kwargs)


def _resnet10_fine(channels: tuple[int, int, int, int], kwargs: dict[str, Any]) -> nn.Module:
    network = ResNet(BasicBlock, layers=(1, 1, 1, 1), channels=channels, **_architecture_options(kwargs))
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    fine: nn.Module = network
    return fine


class ResNet9(nn.Module):
    """Eight convolutions, two of whose pairs are residual, and a global maximum; for pictures of 32 to 96 px.

    The network of Page ("How to train your ResNet", 2018) with as many channels as in the flowers tutorial: 64 to 512.
    """

    num_features = head_hidden_size = 512

    def __init__(self, in_chans: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        self.stem = _conv_norm(in_chans, 64)
        self.conv2 = _conv_norm(64, 128, pool=True)
        self.residual1 = nn.Sequential(_conv_norm(128, 128), _conv_norm(128, 128))
        self.conv3 = _conv_norm(128, 256, pool=True)
        self.conv4 = _conv_norm(256, 512, pool=True)
        self.residual2 = nn.Sequential(_conv_norm(512, 512), _conv_norm(512, 512))
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Another number of classes; 0 is none, the features themselves (timm's interface)."""
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        """float (n, 3, h, w) to (n, 512, h / 8, w / 8)."""
        maps = self.conv2(self.stem(images))
        maps = self.conv4(self.conv3(maps + self.residual1(maps)))
        features: Tensor = maps + self.residual2(maps)
        return features

    def forward_head(self, maps: Tensor) -> Tensor:
        """(n, 512, h, w) to features (n, 512), or to logits where there is a classifier."""
        features: Tensor = self.head(F.adaptive_max_pool2d(maps, 1).flatten(1))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """float (n, 3, h, w) to features (n, 512), or to logits where there is a classifier."""
        return self.forward_head(self.forward_features(images))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002 - timm's interface
        """Depth groups, from the input on (timm's interface)."""
        names = ("stem", "conv2", "residual1", "conv3", "conv4", "residual2")
        return {"stem": r"^stem", "blocks": [(rf"^{name}", (depth,)) for depth, name in enumerate(names) if depth]}


def _conv_norm(n_inputs: int, n_outputs: int, pool: bool = False) -> nn.Sequential:
    layers = [
        nn.Conv2d(n_inputs, n_outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)


@register_model
def resnet9(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ARG001 - timm's interface
    """`ResNet9` under timm's registry."""
    return ResNet9(**_architecture_options(kwargs))


class Pixels(nn.Module):
    """No network: the picture averaged to an 8 x 8 grid is the feature vector, the honest floor of every table."""

    num_features = head_hidden_size = 3 * PIXEL_GRID**2

    def forward(self, images: Tensor) -> Tensor:
        """float (n, 3, h, w) to (n, 192)."""
        return F.interpolate(images, size=(PIXEL_GRID, PIXEL_GRID), mode="area").flatten(1)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002 - timm's interface
        """No parameters, hence no groups (timm's interface)."""
        return {}


@register_model
def pixels(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ARG001 - timm's interface
    """`Pixels` under timm's registry."""
    return Pixels()


def _architecture_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop what `timm.create_model` hands to builders and a plain constructor does not take."""
    return {k: v for k, v in kwargs.items() if k not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
