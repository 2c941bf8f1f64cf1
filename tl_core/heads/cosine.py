"""Cosine head: one learned direction per class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.heads.head import Head
from tl_core.heads.prototypes import SHARPNESS, class_means


class CosineHead(Head):
    """Cosine similarity of features and class directions (Gidaris and Komodakis, 2018), trained from prototypes."""

    def __init__(self, n_inputs: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__(n_inputs, n_classes, dropout)
        self.weight = nn.Parameter(torch.zeros(n_classes, n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_inputs) to logits (n, n_classes)."""
        return SHARPNESS * self._directions(features) @ F.normalize(self.weight, dim=1).T + self.bias

    @torch.no_grad()
    def start(self, features: Tensor, labels: Tensor, l2: float, label_smoothing: float = 0.0) -> None:
        """Point each class's direction at the mean direction of its support features."""
        super().start(features, labels, l2, label_smoothing)
        means = class_means(self._directions(features)[None], labels[None], len(self.bias))[0]
        self.weight.copy_(F.normalize(means, dim=1))
        self.bias.zero_()

    def _directions(self, features: Tensor) -> Tensor:
        return F.normalize(features - self.centre, dim=1)
