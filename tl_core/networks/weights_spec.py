"""What names weights from elsewhere; apart from what loads them, so that reading a name is quick."""

from __future__ import annotations

SUFFIXES = (".safetensors", ".pth", ".pt")


def is_weights_spec(text: str) -> bool:
    """Whether a text names weights from elsewhere: a file of one of `SUFFIXES`, `timm...` or `torchvision...`."""
    return text.partition(":")[0] in ("timm", "torchvision") or text.endswith(SUFFIXES)
