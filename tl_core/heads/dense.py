"""Dense heads: one hidden layer, with batch norm and dropout or without."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tl_core.heads.head import Head
from tl_core.networks.batch_norms import HeadNorm

HIDDEN = 1024


class DenseHead(Head):
    """Logits by one hidden layer of `HIDDEN` units and ReLU."""

    def __init__(self, n_inputs: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__(n_inputs, n_classes, dropout)
        self.hidden = nn.Linear(n_inputs, HIDDEN)
        self.norm: nn.Module = nn.Identity()
        self.dropout: nn.Module = nn.Identity()
        self.output = nn.Linear(HIDDEN, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_inputs) to logits (n, n_classes)."""
        hidden = torch.relu(self.norm(self.hidden((features - self.centre) / self.scale)))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits


class DenseNormHead(DenseHead):
    """The same with batch norm before the ReLU and dropout after it."""

    def __init__(self, n_inputs: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__(n_inputs, n_classes, dropout)
        self.norm = HeadNorm(HIDDEN)
        self.dropout = nn.Dropout(dropout)
