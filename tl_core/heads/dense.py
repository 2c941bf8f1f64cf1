"""Heads of a classifier that is trained on a whole labelled set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.heads.few_shot import FewShotHead
from tl_core.networks.batch_norms import HeadNorm

HIDDEN = 1024


class DenseHead(nn.Module):
    """Logits by one hidden layer of `HIDDEN` units, on features that are first centred and scaled."""

    def __init__(self, n_inputs: int, n_classes: int, norm: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(n_inputs))
        self.register_buffer("scale", torch.ones(()))
        self.hidden = nn.Linear(n_inputs, HIDDEN)
        self.norm = HeadNorm(HIDDEN) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(HIDDEN, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(n, n_inputs) to logits (n, n_classes)."""
        hidden = torch.relu(self.norm(self.hidden((features - self.centre) / self.scale)))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits


def build_head(kind: str, n_inputs: int, n_classes: int, dropout: float = 0.0) -> FewShotHead | DenseHead:
    """A head by its name: linear, cosine, dense or dense_norm.

    Raises:
        InputError: another name.
    """
    if kind in ("linear", "cosine"):
        return FewShotHead(kind, n_inputs, n_classes)  # type: ignore[arg-type]
    if kind in ("dense", "dense_norm"):
        return DenseHead(n_inputs, n_classes, kind == "dense_norm", dropout if kind == "dense_norm" else 0.0)
    raise InputError(f"the classifier's head is {kind!r}; known are linear, cosine, dense, dense_norm")


@torch.no_grad()
def standardise(head: FewShotHead | DenseHead, features: Tensor) -> None:
    """Let a head centre its features and scale them to unit variance, by what these features (n, d) are like."""
    centre = features.mean(0)
    head.centre.copy_(centre)
    head.scale.copy_((features - centre).square().mean().sqrt().clamp(min=1e-6))
