"""Channel-wise normalisation, a part of the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tl_core.networks.backbones import BackboneSpec


class Normalise(nn.Module):
    """Channel-wise (x - mean) / std on float (n, 3, h, w) in [0, 1]."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """float (n, 3, h, w) in [0, 1] to normalised float of the same shape."""
        return (images - self.mean) / self.std
