"""Names of pretrained weights, apart from the loader, so that recognising one imports nothing heavy."""

from __future__ import annotations

EMBEDDED = "embedded"
EMBEDDED_ARCHITECTURE = "tf_efficientnet_lite0"
CREDIT = "EfficientNet-Lite0, trained on ImageNet, Apache licence 2.0"
"""Origin and licence of the embedded weights."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")


def is_weights_spec(text: str) -> bool:
    """True if a text names pretrained weights: `embedded`, a file, `timm...` or `torchvision...`."""
    return text == EMBEDDED or text.partition(":")[0] in ("timm", "torchvision") or text.lower().endswith(SUFFIXES)
