"""Folds over images: stratified, repeated, and with images of one group always in one fold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from tl_core.errors import InputError
from tl_core.recipes.checks import check_count, check_seed

MAX_FOLDS = 10
N_REPEATS = 2
_MANY_IMAGES, _MANY_LOGITS, _MOST_LOGITS = 100, 4_000, 20_000
_MAX_DEALS = 20
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Images that must not be parted.

    Attributes:
        of_image: int64 (n,), the group of each image; numbers from 0 without gaps.
        n_groups: their number.
        notice: a sentence for the user where near-duplicates could not be kept together, else empty.
    """

    of_image: Ints
    n_groups: int
    notice: str = ""


@dataclass(frozen=True)
class Folds:
    """Repeated cross-validation: `of_image`, int64 (n_repeats, n), the fold that holds each image out."""

    of_image: Ints
    n_folds: int

    @property
    def n_repeats(self) -> int:
        """Number of times that the images are dealt out anew."""
        return len(self.of_image)


def group_images(
    labels: Ints,
    class_names: Sequence[str],
    near_duplicates: Ints,
    contents: Sequence[str],
    own: Sequence[str] | None = None,
) -> Groups:
    """Group images that show the same: copies, near-duplicates, and what the user says belongs together.

    Where near-duplicates leave a class in one group, copies of one file alone are kept together.

    Args:
        labels: int64 (n,), positions in `class_names`.
        near_duplicates: int64 (n,), as `ImageDataset.near_duplicates`.
        contents: one per image, equal for identical files, as `ImageDataset.content_hashes`.
        own: the user's groups, one name per image: the patient, plant or video that it shows.

    Raises:
        InputError: one group in all, or a class in one group only, so that no fold could hold it out.
    """
    certain = [_numbered(contents)] + ([] if own is None else [_numbered(own)])
    strict = _joined(certain)
    _refuse_single_groups(labels, class_names, strict, given=own is not None)
    groups = _joined([*certain, near_duplicates])
    lone = [name for name, count in zip(class_names, _groups_per_class(labels, groups), strict=True) if count < 2]
    if not lone:
        return Groups(groups, int(groups.max()) + 1)
    notice = (
        f"all images of {', '.join(lone)} are nearly the same, so that only identical files were kept in one fold; "
        "the accuracy on new images may be lower than estimated"
    )
    return Groups(strict, int(strict.max()) + 1, notice)


def plan_folds(n_images: int, n_classes: int) -> tuple[int, int]:
    """Largest number of folds and number of repeats whose fits take minutes at most.

    A few images need many folds, so that a fit lacks few of them; of many images, a third may be missing.
    """
    if n_images <= _MANY_IMAGES:
        return MAX_FOLDS, N_REPEATS
    n_logits = n_images * n_classes
    return (3 if n_logits > _MOST_LOGITS else MAX_FOLDS // 2), (1 if n_logits > _MANY_LOGITS else N_REPEATS)


def assign_folds(labels: Ints, groups: Groups, n_repeats: int, seed: int, max_folds: int = MAX_FOLDS) -> Folds:
    """Deal images into folds, every class as evenly as its groups allow (scikit-learn's `StratifiedGroupKFold`).

    There are `max_folds` folds, fewer where the largest class has fewer groups. Every class is in three folds at least,
    so that it is still there where two are held out; a class in two groups allows two folds only.

    Args:
        labels: int64 (n,), values 0 .. n_classes - 1, each of them in two groups at least.

    Raises:
        InputError: groups of several classes are so entangled that no such folds were found.
    """
    check_count("n_repeats", n_repeats, 1, 1000)
    check_count("max_folds", max_folds, 2, 100)
    check_seed(seed)
    rng = np.random.default_rng(seed)
    per_class = _groups_per_class(labels, groups.of_image)
    most = min(max_folds, int(per_class.max())) if per_class.min() > 2 else 2
    for n_folds in range(most, 1, -1):
        folds = [_deal(labels, groups.of_image, n_folds, rng) for _ in range(n_repeats)]
        found = [fold for fold in folds if fold is not None]
        if len(found) == n_repeats:
            return Folds(np.stack(found), n_folds)
    raise InputError(
        "expected groups that can be dealt into 2 folds with every class in both, got none; part the groups"
    )


def _deal(labels: Ints, groups: Ints, n_folds: int, rng: np.random.Generator) -> Ints | None:
    for _ in range(_MAX_DEALS):
        dealer = StratifiedGroupKFold(n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
        fold = np.empty(len(labels), dtype=np.int64)
        with warnings.catch_warnings():
            # Its warning is of classes with fewer images than folds, which are in as many folds as they can.
            warnings.simplefilter("ignore", UserWarning)
            for number, (_, held) in enumerate(dealer.split(labels, labels, groups)):
                fold[held] = number
        if len(np.unique(fold)) == n_folds and _groups_per_class(labels, fold).min() >= min(3, n_folds):
            return fold
    return None


def _numbered(names: Sequence[str]) -> Ints:
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1].astype(np.int64)


def _joined(groupings: Sequence[Ints]) -> Ints:
    """Group images that any of the groupings, each int64 (n,), puts together."""
    n = len(groupings[0])
    first = np.concatenate([np.unique(of, return_index=True)[1][_numbered(list(of))] for of in groupings])
    second = np.tile(np.arange(n), len(groupings))
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(n, n))
    joined: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return joined


def _groups_per_class(labels: Ints, groups: Ints) -> Ints:
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    return np.bincount(pairs[0]).astype(np.int64)


def _refuse_single_groups(labels: Ints, class_names: Sequence[str], groups: Ints, given: bool) -> None:
    counts = _groups_per_class(labels, groups)
    kind = "groups" if given else "different images"
    if int(groups.max()) == 0:
        raise InputError(f"expected at least 2 {kind}, got 1; add images of others")
    for name, count in zip(class_names, counts, strict=True):
        if count < 2:
            raise InputError(
                f"expected at least 2 {kind} of every class, got {count} of {name!r}; add images of others"
            )
