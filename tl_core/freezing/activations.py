"""The frozen part's output, computed once per image and view and kept."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.data.splits import Indices
from tl_core.views.augment import augment_batch
from tl_core.views.fixed import dihedral_view, to_float

MAX_IN_MEMORY = 2**30
"""Bytes of one view's activations above which they are kept in a file that is mapped into memory."""

_CHUNK, _MIN_CHUNK = 128, 32  # images per forward pass of the frozen part


class FrozenActivations:
    """Cache of the frozen prefix's activations.

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
        self._folder: Path | None = None
        self._maps: dict[int, NDArray[np.float32]] = {}

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return int(self._images.shape[1])

    def fixed(self, rows: Indices, view: int) -> Tensor:
        """Activations of one `dihedral_view` of some rows: (len(rows), ...)."""
        if not self._keep:
            return torch.cat([self._forward(dihedral_view(p, view)) for p in self._pixels(rows)])
        self.compute(rows, view)
        return self._kept[view][torch.from_numpy(rows)].to(self._device)

    def random(self, rows: Indices, augment: str, generator: torch.Generator, size: int | None = None) -> Tensor:
        """Activations of one random view of each row, of the given side or that of the images: (len(rows), ...)."""
        return torch.cat([self._forward(augment_batch(p, augment, generator, size)) for p in self._pixels(rows)])

    def compute(self, rows: Indices, view: int) -> None:
        """Make sure that one fixed view of some rows is there."""
        if not self._keep:
            return
        known = self._known.setdefault(view, np.zeros(len(self._images), dtype=np.bool_))
        missing = np.unique(rows[~known[rows]])
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            (pixels,) = self._pixels(chunk)
            # Kernels for a few images round otherwise than those for many: what is kept must not depend on who asks.
            padded = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, max(0, _MIN_CHUNK - len(chunk))))
            computed = self._forward(dihedral_view(padded, view))[: len(chunk)]
            if view not in self._kept:
                self._kept[view] = self._allocate(computed, view)
            self._kept[view][torch.from_numpy(chunk)] = computed.to(self._kept[view].device)
            known[chunk] = True

    def share(self, folder: Path) -> None:
        """From now on keep in files of this folder that are mapped into memory, where other processes can read."""
        self._folder, self._kept, self._known, self._maps = folder, {}, {}, {}

    def shared(self) -> dict[int, NDArray[np.float32]]:
        """Return the cached activations of each view, (images, ...); rows that were not computed are zeros."""
        return dict(self._maps)

    def adopt(self, views: Mapping[int, NDArray[np.float32]]) -> None:
        """Read what another process computes; it does so before rows are asked for here."""
        for view, values in views.items():
            self._kept[view] = torch.from_numpy(values)
            self._known[view] = np.ones(len(self._images), dtype=np.bool_)

    def _allocate(self, like: Tensor, view: int) -> Tensor:
        """Room for all images. Pages that are never touched cost nothing: only images that are used count."""
        shape = (len(self._images), *like.shape[1:])
        if self._folder is not None:
            path = self._folder / f"view{view}"
            self._maps[view] = np.memmap(path, dtype=np.float32, mode="w+", shape=shape)
            return torch.from_numpy(self._maps[view])
        if math.prod(shape) * like.element_size() <= MAX_IN_MEMORY:
            return like.new_empty(shape)
        with tempfile.TemporaryFile() as file:  # without a name: gone with the process, however that ends
            return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))

    def _pixels(self, rows: Indices) -> Iterator[Tensor]:
        for start in range(0, len(rows), _CHUNK):
            chunk = torch.from_numpy(self._images[rows[start : start + _CHUNK]])
            yield to_float(chunk.to(self._device))

    @torch.no_grad()
    def _forward(self, images: Tensor) -> Tensor:
        activations: Tensor = self._prefix(images)
        return activations.detach()
