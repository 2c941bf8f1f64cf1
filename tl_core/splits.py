"""Which images may be used for what: splits inside each class, fixed by seed or by content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_core.datasets import ImageDataset
from tl_core.errors import InputError
from tl_core.recipes import Part

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ClassSplit:
    """Row numbers of the three parts; every class is in each, and no row is in two."""

    train: Indices
    val: Indices
    test: Indices


def split_within_classes(dataset: ImageDataset, val: float, test: float, seed: int) -> ClassSplit:
    """Split every class at random into train, validation and test rows.

    Args:
        val, test: fractions of each class; at least one image of a class goes to each part.

    Raises:
        InputError: a class has fewer than three images.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Indices]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(dataset.class_names):
        rows = rng.permutation(np.flatnonzero(dataset.labels == label))
        if len(rows) < 3:
            raise InputError(f"class {name} of {dataset.name} has {len(rows)} image(s); pretraining needs at least 3")
        n_val, n_test = (min(max(1, round(share * len(rows))), (len(rows) - 1) // 2) for share in (val, test))
        for part, chunk in zip(parts, np.split(rows, [-(n_val + n_test), -n_test]), strict=True):
            parts[part].append(chunk)
    return ClassSplit(**{part: np.sort(np.concatenate(chunks)) for part, chunks in parts.items()})


def part_rows(dataset: ImageDataset, part: Part) -> Indices:
    """Rows of one part of the target: `search` and `report` halve each class by content hash.

    The halves depend on nothing but the files' content: no seed can move an image across, and two identical
    files are always in the same half.
    """
    if part == "all":
        return np.arange(len(dataset.labels))
    hashes = np.array(dataset.content_hashes)
    part_of: dict[str, str] = {}
    for label in range(len(dataset.class_names)):
        members = np.flatnonzero(dataset.labels == label)
        unique = np.unique(hashes[members]).tolist()  # sorted: the order is as good as random, and fixed
        # A copy of a file in an earlier class has its part already.
        free = [content for content in unique if content not in part_of]
        n_search = max(0, len(unique) // 2 - sum(part_of.get(content) == "search" for content in unique))
        part_of |= dict.fromkeys(free[:n_search], "search") | dict.fromkeys(free[n_search:], "report")
    return np.flatnonzero([part_of[content] == part for content in dataset.content_hashes])
