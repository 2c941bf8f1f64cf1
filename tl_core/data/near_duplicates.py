"""Pictures that are nearly the same: one photograph twice, saved again, resized, or a neighbouring frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

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
"""Images whose thumbnails are made at a time."""
_BLOCK = 1024
"""Thumbnails that are compared with as many others at a time; memory grows with its square, not with a class's."""

Ints = NDArray[np.int64]


def group_near_duplicates(images: NDArray[np.uint8], labels: Ints, contents: Sequence[str]) -> Ints:
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
    first_copy = np.unique(copy_of, return_index=True)[1][copy_of]
    first_alike = np.arange(len(images))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        first_alike[rows] = rows[_first_alike(thumbnails[rows])]
    every = np.arange(len(images))
    return _components(np.tile(every, 2), np.concatenate([first_copy, first_alike]), len(images))


def _first_alike(thumbnails: NDArray[np.float32]) -> Ints:
    """First thumbnail of each one's group, int64 (n,), by a forest to which a pair of blocks at a time adds."""
    parents = np.arange(len(thumbnails))
    blocks = [np.arange(start, min(start + _BLOCK, len(parents))) for start in range(0, len(parents), _BLOCK)]
    for first, second in combinations_with_replacement(blocks, 2):
        roots, others = _roots(parents, first), _roots(parents, second)
        if roots.min() == roots.max() == others.min() == others.max():
            continue  # all of both are in one group already
        alike = thumbnails[first] @ thumbnails[second].T > ALIKE
        if alike.any():
            _join_alike(parents, first, second, alike)
    return _roots(parents, np.arange(len(parents)))


def _join_alike(parents: Ints, first: Ints, second: Ints, alike: NDArray[np.bool_]) -> None:
    """Join the trees of all pairs that are alike, without a list of the pairs: spanning trees by Boruvka (1926).

    In each round every thumbnail follows one pair out of its tree, so that at most half of the trees with such pairs
    remain.

    Args:
        parents: int64 (n,), changed in place.
        first, second: nodes of a block, int64 (a,) and (b,).
        alike: bool (a, b), overwritten.
    """
    while True:
        alike &= _roots(parents, first)[:, None] != _roots(parents, second)[None, :]
        rows, columns = np.flatnonzero(alike.any(1)), np.flatnonzero(alike.any(0))
        if len(rows) == 0:
            return
        of_rows, of_columns = alike[rows].argmax(1), alike[:, columns].argmax(0)
        _join(
            parents,
            np.concatenate([first[rows], first[of_columns]]),
            np.concatenate([second[of_rows], second[columns]]),
        )


def _roots(parents: Ints, nodes: Ints) -> Ints:
    """Roots of the nodes' trees; the paths there are shortened in place."""
    roots = parents[nodes]
    while not np.array_equal(roots, above := parents[roots]):
        roots = above
    parents[nodes] = roots
    return roots


def _join(parents: Ints, first: Ints, second: Ints) -> None:
    """Join the trees of some pairs in place; the smallest root becomes that of all."""
    ends = np.stack([_roots(parents, first), _roots(parents, second)])
    roots, numbers = np.unique(ends, return_inverse=True)
    first_number, second_number = numbers.reshape(2, -1)
    tree = _components(first_number, second_number, len(roots))
    parents[roots] = roots[np.unique(tree, return_index=True)[1]][tree]


def _components(first: Ints, second: Ints, n: int) -> Ints:
    """Number of each node's component, int64 (n,), in a graph of n nodes with these edges."""
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(n, n))
    components: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return components


def _thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey thumbnails without their mean, of length 1; flat ones are all zeros: float32 (n, SIDE * SIDE)."""
    grey = torch.from_numpy(np.array(images)).float().mean(3, keepdim=True).movedim(3, 1)
    small = F.adaptive_avg_pool2d(grey, SIDE).flatten(1)
    centred = small - small.mean(1, keepdim=True)
    spread = centred.square().mean(1, keepdim=True).sqrt()
    return torch.where(spread > _FLAT, F.normalize(centred, dim=1), torch.zeros_like(centred)).numpy()
