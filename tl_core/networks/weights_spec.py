"""Names of pretrained weights, apart from the loader, so that recognising one imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EMBEDDED = "embedded"
EMBEDDED_ARCHITECTURE = "tf_efficientnet_lite0"
CREDIT = "EfficientNet-Lite0, trained on ImageNet, Apache licence 2.0"
"""Origin and licence of the embedded weights."""


@dataclass(frozen=True)
class NamedWeights:
    """Weights of timm's hub under a short name.

    Attributes:
        image_size: side of the input in pixels, if none is asked for.
        megabytes: size of the download.
        credit: origin and licence.
    """

    architecture: str
    tag: str
    image_size: int
    megabytes: int
    credit: str


NAMED: Mapping[str, NamedWeights] = {
    "mobilenet": NamedWeights(
        *("mobilenetv4_conv_small", "e2400_r224_in1k", 224, 15),
        "MobileNetV4 small, trained on ImageNet, Apache licence 2.0",
    ),
    "dinov2": NamedWeights(
        *("vit_small_patch14_dinov2", "lvd142m", 224, 88),
        "DINOv2 ViT-S/14, trained without labels on LVD-142M, Apache licence 2.0",
    ),
    "convnext": NamedWeights(
        *("convnext_tiny", "in12k", 224, 148),
        "ConvNeXt-T, trained on ImageNet-12k, Apache licence 2.0",
    ),
}
"""Networks worth a try beside the embedded one, from small to large."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")


def is_weights_spec(text: str) -> bool:
    """True if a text names pretrained weights: `embedded`, one of `NAMED`, a file, `timm...` or `torchvision...`."""
    return (
        text == EMBEDDED
        or text in NAMED
        or text.partition(":")[0] in ("timm", "torchvision")
        or text.lower().endswith(SUFFIXES)
    )


def credit_of(weights: str) -> str:
    """Return origin and licence of weights that have a name of their own; empty for all others."""
    return CREDIT if weights == EMBEDDED else NAMED[weights].credit if weights in NAMED else ""
