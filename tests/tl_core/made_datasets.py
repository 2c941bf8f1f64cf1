"""Datasets without pictures, for tests of which rows are used for what."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from tl_core.data.dataset import ImageDataset


def content_hash(content: object) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


def made_dataset(labels: Sequence[int], contents: Sequence[object] | None = None) -> ImageDataset:
    """A dataset with these labels; rows of equal `contents` are copies of one file, without it no two are."""
    hashes = [content_hash(content) for content in (range(len(labels)) if contents is None else contents)]
    class_names = tuple(f"class{label}" for label in range(max(labels) + 1))
    return ImageDataset(
        name="made",
        class_names=class_names,
        images=np.broadcast_to(np.uint8(0), (len(labels), 8, 8, 3)),
        labels=np.array(labels, dtype=np.int64),
        file_names=tuple(f"class{label}/{row}.png" for row, label in enumerate(labels)),
        content_hashes=tuple(hashes),
        fingerprint=content_hash(list(zip(labels, hashes, strict=True))),
        unreadable=(),
        decoded=0,
    )


def dataset_of_counts(counts: Sequence[int]) -> ImageDataset:
    """A dataset with so many images of each class, the classes' rows interleaved."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    order = np.random.default_rng(0).permutation(len(labels))
    return made_dataset([labels[row] for row in order])
