"""A class of which most images are nearly the same still has two halves."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tl_core.made_datasets import content_hash, made_dataset
from tl_core.data.dataset import ImageDataset
from tl_core.data.episodes import build_pool
from tl_core.data.halves import halve, keep_halves
from tl_core.data.near_duplicates import group_near_duplicates
from tl_core.errors import DataWarning

SIZE = 32


def inspection_images(rng: np.random.Generator, background: NDArray[np.int64], n: int, mark: int) -> NDArray[np.int64]:
    """Images of one part before a fixed camera, each with noise and with a small mark at another place."""
    images = background + rng.integers(-4, 5, (n, *background.shape))
    for image in images:
        y, x = rng.integers(0, SIZE - 3, 2)
        image[y : y + 3, x : x + 1] += mark
    return images


def inspection(n: int = 40) -> ImageDataset:
    """Two classes on one background, class0 without a defect, class1 with a scratch."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, SIZE).astype(np.int64)
    background = np.broadcast_to(ramp[:, None, None], (SIZE, SIZE, 3))
    images = np.concatenate([inspection_images(rng, background, n, mark) for mark in (0, 50)])
    return replace(made_dataset(n * [0] + n * [1]), images=images.astype(np.uint8))


def kept(sizes: list[int]) -> tuple[int, list[str]]:
    """Groups that are kept of a class with groups of these sizes, beside one without near-duplicates; the warnings."""
    n = sum(sizes)
    labels = np.repeat([0, 1], n)
    alike = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), 1000 + np.arange(n)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = keep_halves(alike, labels, ["good", "bad"], [content_hash(row) for row in range(2 * n)])
    assert len(set(found[n:].tolist())) == n
    return len(set(found[:n].tolist())), [str(warning.message) for warning in caught]


def test_copies_of_images_in_another_class_count_towards_the_search_half() -> None:
    first, copies, others = (
        [f"{number:02d}" for number in range(start, start + n)] for start, n in ((0, 10), (0, 5), (20, 5))
    )
    contents = [*first, *copies, *others]  # of the first class, the first five are in the search half
    groups = np.unique(contents, return_inverse=True)[1]
    searched = halve(np.repeat([0, 1], 10), contents, groups)
    assert [content for content, found in zip(contents, searched, strict=True) if found] == [*copies, *copies]


def test_inspection_images_are_halved_with_one_warning() -> None:
    dataset = inspection()
    alike = group_near_duplicates(dataset.images, dataset.labels, dataset.content_hashes)
    assert len(set(alike.tolist())) == 2
    with pytest.warns(DataWarning, match="^most images of class0, class1 are nearly the same") as caught:
        halves = [build_pool(dataset, part).rows_by_class for part in ("search", "report")]  # type: ignore[arg-type]
    assert [[len(rows) for rows in half] for half in halves] == [[20, 20], [20, 20]]
    assert len(caught) == 1


@pytest.mark.parametrize("sizes", [[40], [39, 1], [36, 1, 1, 1, 1], [2], [12]])
def test_a_class_left_without_a_half_keeps_identical_files_alone(sizes: list[int]) -> None:
    n_groups, sentences = kept(sizes)
    assert n_groups == sum(sizes)
    assert sentences == [
        "most images of good are nearly the same, so only identical files were kept together; "
        "the accuracy on new images may be lower than estimated"
    ]


@pytest.mark.parametrize("sizes", [[20, 20], [13, 13, 14], [2] + 18 * [1], [2, 1, 1], 30 * [10], [15] + 85 * [1]])
def test_near_duplicates_stay_together_where_halves_have_images(sizes: list[int]) -> None:
    assert kept(sizes) == (len(sizes), [])


def test_copies_stay_together_beside_images_that_are_nearly_the_same() -> None:
    labels, contents = np.repeat([0, 1], 20), [content_hash(row // 2) for row in range(40)]
    with pytest.warns(DataWarning, match="most images of good are"):
        groups = keep_halves(np.where(labels == 0, 0, 1 + np.arange(40) // 2), labels, ["good", "bad"], contents)
    assert groups.tolist() == [groups[row - row % 2] for row in range(40)]
    assert len(set(groups.tolist())) == 20
    searched = halve(labels, contents, groups)
    assert searched[0::2].tolist() == searched[1::2].tolist()
    assert np.bincount(labels[searched]).tolist() == [10, 10]


def test_a_class_that_copies_alone_make_small_is_left_as_it_is() -> None:
    contents = [content_hash(0)] * 10 + [content_hash(row) for row in range(10, 20)]
    alike = np.array([0] * 10 + list(range(10, 20)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keep_halves(alike, np.repeat([0, 1], 10), ["one file", "others"], contents).tolist() == alike.tolist()


def test_copies_in_an_earlier_class_are_counted_in_both_halves() -> None:
    # class1 holds a copy of every file of class0: five of them are in the search half already.
    contents = [content_hash(i) for i in range(10)]
    others = [content_hash(100 + i) for i in range(10)]
    labels = np.array([0] * 10 + [1] * 20)
    searched = halve(labels, [*contents, *contents, *others], np.arange(30))
    assert [int(searched[labels == label].sum()) for label in (0, 1)] == [5, 10]
    alone = halve(labels[:10], contents, np.arange(10))
    assert searched[:10].tolist() == searched[10:20].tolist() == alone.tolist()
