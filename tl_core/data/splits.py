"""Splits inside each class, fixed by seed or by content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_core.data.dataset import ImageDataset
from tl_core.data.halves import halve
from tl_core.errors import InputError
from tl_core.recipes.choices import Part, SplitRule

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ClassSplit:
    """Row numbers of the three parts; every class is in each, and no row is in two."""

    train: Indices
    val: Indices
    test: Indices

    @property
    def fingerprint(self) -> str:
        """Hash of which rows are where."""
        return hashlib.sha256(
            json.dumps([part.tolist() for part in (self.train, self.val, self.test)]).encode()
        ).hexdigest()


def split_within_classes(
    dataset: ImageDataset, val: float, test: float, seed: int, groups: Indices | None = None
) -> ClassSplit:
    """Split every class at random into train, validation and test rows.

    Args:
        val, test: fractions of each class; at least one image of a class goes to each part.
        groups: int64 (images,), equal for images that stay together; without them each stands alone.

    Raises:
        InputError: a class has fewer than three images, or than three groups.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Indices]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(dataset.class_names):
        rows = rng.permutation(np.flatnonzero(dataset.labels == label))
        if len(rows) < 3:
            raise InputError(f"class {name} of {dataset.name} has {len(rows)} image(s); a split needs at least 3")
        n_val, n_test = (min(max(1, round(share * len(rows))), (len(rows) - 1) // 2) for share in (val, test))
        if groups is not None:
            rows, n_val, n_test = _keep_together(rows, groups[rows], n_val, n_test)
        if not 0 < n_val + n_test < len(rows):
            raise InputError(
                f"class {name} of {dataset.name} has {len(rows)} images, but fewer than 3 that do not show the same; "
                "a split needs at least 3"
            )
        for part, chunk in zip(parts, np.split(rows, [-(n_val + n_test), -n_test]), strict=True):
            parts[part].append(chunk)
    return ClassSplit(**{part: np.sort(np.concatenate(chunks)) for part, chunks in parts.items()})


def _keep_together(rows: Indices, groups: Indices, n_val: int, n_test: int) -> tuple[Indices, int, int]:
    """Order rows group by group, and move the ends of the parts to where a group ends.

    Returns:
        Rows, and sizes of validation and test, each at least as asked for unless that leaves no group for another part;
        0 and 0 with fewer than three groups.
    """
    _, first, of_row = np.unique(groups, return_index=True, return_inverse=True)
    place = first[of_row]  # where the group's first row stands
    order = np.argsort(place, kind="stable")
    last = np.flatnonzero(np.append(np.diff(place[order]) != 0, True)) + 1  # where each group ends
    # From the end: the shortest run of whole groups that has enough images.
    starts = np.append(0, last[:-1])
    if len(starts) < 3:
        return rows[order], 0, 0
    test = max(starts[2], starts[starts <= len(rows) - n_test].max(initial=0))
    val = max(starts[1], starts[starts <= test - n_val].max(initial=0))
    return rows[order], test - val, len(rows) - test


def part_rows(dataset: ImageDataset, part: Part) -> Indices:
    """Rows of one part of the target: `search` and `report` halve each class by content hash.

    Files that are identical, or nearly, are in the same half (`ImageDataset.near_duplicates`).
    """
    if part == "all":
        return np.arange(len(dataset.labels))
    searched = halve(dataset.labels, dataset.content_hashes, dataset.near_duplicates)
    return np.flatnonzero(searched == (part == "search"))


def split_for_training(dataset: ImageDataset, rule: SplitRule, val: float, test: float, seed: int) -> ClassSplit:
    """Train, validation and test rows: those of the layout where it has them, else a random split of each class.

    Of a layout with two parts, the second is the test part, under whichever name, and validation is cut from the
    training part: what chooses a model cannot also judge it. An image of which the test part holds a copy, or one that
    shows nearly the same, is in no other part, and one of which validation holds such a copy is not trained on.

    Args:
        rule: `layout` insists on the layout's parts, `random` ignores them, `auto` takes them where they are complete.
        val, test: fractions of each class, where they are not given by the layout.

    Raises:
        InputError: `layout` without such parts, or test or validation classes that the training part lacks.
    """
    found = sorted(set(dataset.parts) - {""})
    complete = "train" in found and len(found) > 1
    if rule == "layout" and not complete:
        raise InputError(
            f"{dataset.name} is not laid out in parts: expected folders train, val and test (or columns of a csv) "
            f"with the classes in them, got {', '.join(found) or 'class folders alone'}; give split=random"
        )
    if rule == "random" or not complete:
        split = split_within_classes(dataset, val, test, seed, dataset.near_duplicates)
    else:
        split = _split_of_layout(dataset, val, seed)
    return _without_copies(dataset, split)


def _split_of_layout(dataset: ImageDataset, val: float, seed: int) -> ClassSplit:
    parts = np.array(dataset.parts)
    outside = np.flatnonzero(parts == "")
    if len(outside):
        raise InputError(
            f"{len(outside)} images of {dataset.name} are in none of its parts train, val and test, "
            f"the first is {dataset.file_names[outside[0]]}"
        )
    train, held_out, test = (np.flatnonzero(parts == part) for part in ("train", "val", "test"))
    if len(held_out) and len(test):
        _check_classes(dataset, train, test, "test")
        _check_classes(dataset, train, held_out, "val")
        return ClassSplit(train, held_out, test)
    test = np.concatenate([held_out, test])
    _check_classes(dataset, train, test, "test")
    chosen = _draw_from_classes(dataset, train, val, seed)
    return ClassSplit(np.setdiff1d(train, chosen), chosen, test)


def _draw_from_classes(dataset: ImageDataset, rows: Indices, share: float, seed: int) -> Indices:
    rng = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(dataset.labels[rows]):
        of_class = rng.permutation(rows[dataset.labels[rows] == label])
        if len(of_class) < 2:
            name = dataset.class_names[label]
            raise InputError(f"class {name} of {dataset.name} has 1 training image; validation needs another one")
        drawn.append(of_class[: min(max(1, round(share * len(of_class))), len(of_class) - 1)])
    return np.sort(np.concatenate(drawn))


def _check_classes(dataset: ImageDataset, train: Indices, rows: Indices, part: str) -> None:
    unknown = sorted(set(dataset.labels[rows].tolist()) - set(dataset.labels[train].tolist()))
    if unknown:
        names = ", ".join(dataset.class_names[label] for label in unknown)
        raise InputError(f"the {part} part of {dataset.name} has classes that its training part lacks: {names}")


def _without_copies(dataset: ImageDataset, split: ClassSplit) -> ClassSplit:
    groups = dataset.near_duplicates
    val = split.val[~np.isin(groups[split.val], groups[split.test])]
    known = np.concatenate([groups[split.test], groups[val]])
    train = split.train[~np.isin(groups[split.train], known)]
    for name, rows in (("training", train), ("validation", val)):
        if len(rows) == 0:
            raise InputError(f"every {name} image of {dataset.name} is a copy of an image that is held out")
    return ClassSplit(train, val, split.test)
