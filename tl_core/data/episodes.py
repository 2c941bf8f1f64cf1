"""Episodes: small classification tasks drawn from a target (Vinyals et al., 2016).

An episode is a pure function of the pool's fingerprint, the seed and its index: episode 7 is the same in every
process, whatever was drawn before it, and two methods can be compared on it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tl_core.data.dataset import ImageDataset
from tl_core.data.halves import MIN_HALF
from tl_core.data.splits import Indices, part_rows
from tl_core.errors import InputError
from tl_core.recipes.choices import Part
from tl_core.recipes.episode import EpisodeShape

STANDARD = EpisodeShape()
"""The literature's 5-way 5-shot with 15 queries."""


@dataclass(frozen=True)
class EpisodePool:
    """The rows of a dataset from which episodes may draw.

    Attributes:
        rows_by_class: for each class, the rows (int64) that may be drawn.
        alike: int64 (images of the dataset,), equal for near-duplicates, of which an episode draws one.
        fingerprint: of the dataset and the part; goes into every episode's seed.
    """

    class_names: tuple[str, ...]
    rows_by_class: tuple[Indices, ...]
    alike: NDArray[np.int64]
    fingerprint: str

    @cached_property  # asked for by every episode
    def class_sizes(self) -> tuple[int, ...]:
        """Number of images in each class, near-duplicates counted once."""
        return tuple(len(np.unique(self.alike[rows])) for rows in self.rows_by_class)


@dataclass(frozen=True)
class Episode:
    """One draw.

    Attributes:
        index: position in the sequence of episodes.
        class_ids: the classes drawn, as labels of the dataset; an episode's label is a position in it.
        support_rows, query_rows: dataset rows, int64, shapes (n_way * n_shot,) and (n_way * n_query,).
        support_labels, query_labels: int64, the same shapes, values 0 .. n_way - 1.
        seed: 63-bit seed for whatever else is random in this episode.
    """

    index: int
    class_ids: tuple[int, ...]
    support_rows: Indices
    support_labels: NDArray[np.int64]
    query_rows: Indices
    query_labels: NDArray[np.int64]
    seed: int


def build_pool(dataset: ImageDataset, part: Part) -> EpisodePool:
    """The pool of one part of a dataset."""
    rows = part_rows(dataset, part)
    labels = dataset.labels[rows]
    by_class = tuple(rows[labels == label] for label in range(len(dataset.class_names)))
    fingerprint = hashlib.sha256(f"{dataset.fingerprint}:{part}".encode()).hexdigest()
    return EpisodePool(dataset.class_names, by_class, dataset.near_duplicates, fingerprint)


def can_be_halved(dataset: ImageDataset) -> bool:
    """Return whether half of the smallest class is enough to score on, so that the other half is left to a search."""
    return min(build_pool(dataset, "report").class_sizes) >= MIN_HALF


def fit_shape(pool: EpisodePool, shape: EpisodeShape) -> EpisodeShape:
    """The shape with its open numbers settled by what the smallest class of the pool can give."""
    smallest = min(pool.class_sizes)
    for_support = smallest - shape.n_query if shape.n_query else smallest // 2
    n_shot = shape.n_shot or max(1, min(STANDARD.n_shot, for_support))
    n_query = shape.n_query or max(1, min(STANDARD.n_query, smallest - n_shot))
    return EpisodeShape(shape.n_way or len(pool.class_names), n_shot, n_query)


def check_pool(pool: EpisodePool, shape: EpisodeShape) -> None:
    """Raise `InputError` if some episode of this shape, settled by `fit_shape`, could not be drawn."""
    assert min(shape.n_way, shape.n_shot, shape.n_query) > 0
    if shape.n_way > len(pool.class_names):
        raise InputError(f"n_way is {shape.n_way}, but the target has {len(pool.class_names)} classes")
    needed = shape.n_shot + shape.n_query
    for name, size, rows in zip(pool.class_names, pool.class_sizes, pool.rows_by_class, strict=True):
        if size < needed:
            images = "image" if size == 1 else "images"
            counted = f" ({len(rows)} with near-duplicates)" if len(rows) > size else ""
            raise InputError(
                f"class {name} has {size} {images}{counted} in this part of the target, but n_shot + n_query is "
                f"{needed} ({needed - size} missing); add images, lower the two, or give part=all (if nothing was "
                "searched on this target)"
            )


def sample_episode(pool: EpisodePool, shape: EpisodeShape, seed: int, index: int) -> Episode:
    """Draw episode number `index`: `n_way` classes, then disjoint support and query images of each.

    Of images that are nearly the same, at most one is drawn: a copy of a support image is no query.

    Raises:
        InputError: the pool has too few classes or images for the shape.
    """
    check_pool(pool, shape)
    rng = np.random.default_rng([int(pool.fingerprint[:16], 16), seed, index])
    class_ids = rng.choice(len(pool.class_names), size=shape.n_way, replace=False)
    drawn = np.stack([_draw(pool.rows_by_class[c], pool.alike, shape.n_shot + shape.n_query, rng) for c in class_ids])
    ways = np.arange(shape.n_way)
    return Episode(
        index=index,
        class_ids=tuple(int(c) for c in class_ids),
        support_rows=drawn[:, : shape.n_shot].ravel(),
        support_labels=np.repeat(ways, shape.n_shot),
        query_rows=drawn[:, shape.n_shot :].ravel(),
        query_labels=np.repeat(ways, shape.n_query),
        seed=int(rng.integers(2**63)),
    )


def _draw(rows: Indices, alike: NDArray[np.int64], size: int, rng: np.random.Generator) -> Indices:
    """Draw rows of which no two are alike; without near-duplicates this is one choice out of all rows."""
    drawn = rng.choice(rows, size=size, replace=False)
    _, first = np.unique(alike[drawn], return_index=True)
    if len(first) == size:
        return drawn
    kept = drawn[np.sort(first)]
    others = rng.permutation(rows[~np.isin(alike[rows], alike[kept])])
    _, first = np.unique(alike[others], return_index=True)
    return np.concatenate([kept, others[np.sort(first)][: size - len(kept)]])
