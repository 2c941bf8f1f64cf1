"""Names of pretrained weights, apart from the loader, so that recognising one imports nothing heavy."""

from __future__ import annotations

SUFFIXES = (".safetensors", ".pth", ".pt")


def is_weights_spec(text: str) -> bool:
    """True if a text names pretrained weights: a file with one of `SUFFIXES`, `timm...` or `torchvision...`."""
    return text.partition(":")[0] in ("timm", "torchvision") or text.endswith(SUFFIXES)
