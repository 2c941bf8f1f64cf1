"""Pictures that are nearly the same: one photograph twice, saved again, resized, or a neighbouring frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.nn import functional as F

SIDE = 16
"""Pictures are compared as grey thumbnails of this side."""
ALIKE = 0.99
"""Correlation of two thumbnails from which on they count as the same picture."""

_FLAT = 2.0
"""Grey levels of standard deviation below which a thumbnail shows nothing to compare."""
_CHUNK = 2048


def group_near_duplicates(
    images: NDArray[np.uint8], labels: NDArray[np.int64], contents: Sequence[str]
) -> NDArray[np.int64]:
    """Number the groups of images that are the same, or in one class nearly so, directly or by way of others.

    Args:
        images: uint8 (n, s, s, 3).
        labels: int64 (n,).
        contents: one per image, equal for identical files.

    Returns:
        Group of each image, int64 (n,); most are alone in theirs.
    """
    starts = range(0, len(images), _CHUNK)
    thumbnails = np.concatenate([_thumbnails(images[start : start + _CHUNK]) for start in starts])
    copy_of = np.unique(np.array(contents), return_inverse=True)[1]
    pairs = [np.stack([np.arange(len(images)), np.unique(copy_of, return_index=True)[1][copy_of]])]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            first, second = np.nonzero(thumbnails[some] @ thumbnails[rows].T > ALIKE)
            pairs.append(np.stack([some[first], rows[second]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(len(images), len(images)))
    groups: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups


def _thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey thumbnails without their mean, of length 1; flat ones are all zeros: float32 (n, SIDE * SIDE)."""
    grey = torch.from_numpy(np.array(images)).float().mean(3, keepdim=True).movedim(3, 1)
    small = F.adaptive_avg_pool2d(grey, SIDE).flatten(1)
    centred = small - small.mean(1, keepdim=True)
    spread = centred.square().mean(1, keepdim=True).sqrt()
    return torch.where(spread > _FLAT, F.normalize(centred, dim=1), torch.zeros_like(centred)).numpy()
