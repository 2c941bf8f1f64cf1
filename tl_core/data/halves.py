"""Halves of each class by content: `search` chooses on one, `report` scores on the other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tl_core.errors import DataWarning

Ints = NDArray[np.int64]

MIN_HALF = 10
"""Images of a class below which half of them is not enough to judge by."""


def halve(labels: Ints, contents: Sequence[str], groups: Ints) -> NDArray[np.bool_]:
    """Halve every class by content hash, whole groups at a time.

    The halves depend on nothing but the files' content: no seed can move an image across.

    Args:
        labels: int64 (n,).
        contents: one hash per image.
        groups: int64 (n,), equal for images that stay together.

    Returns:
        Membership of the search half, bool (n,); the others are the report half.
    """
    hashes = np.array(contents)
    order = np.argsort(hashes)
    # Of a group, the first hash stands for all.
    found, first = np.unique(groups[order], return_index=True)
    leader = dict(zip(found.tolist(), hashes[order][first].tolist(), strict=True))
    hashes = np.array([leader[group] for group in groups.tolist()])
    searched: dict[str, bool] = {}
    for label in np.unique(labels):
        unique = np.unique(hashes[labels == label]).tolist()  # sorted: the order is as good as random, and fixed
        # A copy of a file in an earlier class has its half already.
        free = [content for content in unique if content not in searched]
        n_search = max(0, len(unique) // 2 - sum(searched.get(content, False) for content in unique))
        searched |= dict.fromkeys(free[:n_search], True) | dict.fromkeys(free[n_search:], False)
    return np.array([searched[content] for content in hashes.tolist()])


def keep_halves(alike: Ints, labels: Ints, class_names: Sequence[str], contents: Sequence[str]) -> Ints:
    """Groups of images that stay together: near-duplicates, unless halves of whole groups would be left without images.

    That is so if one half of a class would have fewer than `MIN_HALF` images, and fewer than half as many as with
    identical files alone kept together; a part seen by a fixed camera looks nearly the same on all images. Then
    identical files alone are kept together, in all classes, with a `DataWarning`.

    Args:
        alike: int64 (n,), groups of near-duplicates.
        labels: int64 (n,), positions in `class_names`.
        contents: one hash per image.
    """
    identical = np.unique(np.array(contents), return_inverse=True)[1].astype(np.int64)
    if len(np.unique(alike)) == len(np.unique(identical)):
        return alike
    smaller, possible = (_smaller_halves(labels, halve(labels, contents, groups)) for groups in (alike, identical))
    lacking = np.flatnonzero(smaller < np.minimum(MIN_HALF, possible / 2))
    if len(lacking) == 0:
        return alike
    names = ", ".join(class_names[label] for label in lacking.tolist())
    warnings.warn(
        f"most images of {names} are nearly the same, so only identical files were kept together; "
        "the accuracy on new images may be lower than estimated",
        DataWarning,
        stacklevel=2,
    )
    return identical


def _smaller_halves(labels: Ints, searched: NDArray[np.bool_]) -> Ints:
    """Images in the smaller half of each class, int64 (n_classes,)."""
    sizes = np.bincount(labels)
    in_search = np.bincount(labels[searched], minlength=len(sizes))
    smaller: Ints = np.minimum(in_search, sizes - in_search)
    return smaller
