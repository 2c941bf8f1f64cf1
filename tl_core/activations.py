"""The frozen part's output, computed once per image and view and kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_core.augment import augment_batch, dihedral_view, to_float
from tl_core.splits import Indices

_CHUNK = 128  # images per forward pass of the frozen part


class FrozenActivations:
    """What the frozen prefix says of a dataset's images.

    Fixed views are computed when first asked for and kept for every later episode and trial; random views are
    computed each time.
    """

    def __init__(self, prefix: nn.Module, images: NDArray[np.uint8], device: torch.device, keep: bool) -> None:
        """`prefix` maps float (n, 3, s, s) in [0, 1] to activations; `keep` is off where nothing is frozen."""
        self._prefix = prefix.to(device).eval()
        self._images = images
        self._device = device
        self._keep = keep
        self._kept: dict[int, Tensor] = {}
        self._known: dict[int, NDArray[np.bool_]] = {}

    def fixed(self, rows: Indices, view: int) -> Tensor:
        """Activations of one `dihedral_view` of some rows: (len(rows), ...)."""
        if not self._keep:
            return torch.cat([self._forward(dihedral_view(p, view)) for p in self._pixels(rows)])
        self._fill(rows, view)
        return self._kept[view][torch.from_numpy(rows)]

    def random(self, rows: Indices, augment: str, generator: torch.Generator) -> Tensor:
        """Activations of one random view of each row: (len(rows), ...)."""
        return torch.cat([self._forward(augment_batch(p, augment, generator)) for p in self._pixels(rows)])

    def _fill(self, rows: Indices, view: int) -> None:
        known = self._known.setdefault(view, np.zeros(len(self._images), dtype=np.bool_))
        missing = np.unique(rows[~known[rows]])
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            computed = torch.cat([self._forward(dihedral_view(p, view)) for p in self._pixels(chunk)])
            if view not in self._kept:
                # Untouched pages of a fresh allocation cost no memory: only images that are used count.
                self._kept[view] = computed.new_empty((len(self._images), *computed.shape[1:]))
            self._kept[view][torch.from_numpy(chunk)] = computed
            known[chunk] = True

    def _pixels(self, rows: Indices) -> Iterator[Tensor]:
        for start in range(0, len(rows), _CHUNK):
            chunk = torch.from_numpy(self._images[rows[start : start + _CHUNK]])
            yield to_float(chunk.to(self._device))

    @torch.no_grad()
    def _forward(self, images: Tensor) -> Tensor:
        activations: Tensor = self._prefix(images)
        return activations.detach()
