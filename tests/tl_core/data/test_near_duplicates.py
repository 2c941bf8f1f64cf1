"""Pictures that are nearly the same stay together, and others do not."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.tl_core.fewshot.test_finetuner import NOISE
from tests.tl_core.made_datasets import content_hash
from tl_core.data.near_duplicates import group_near_duplicates
from tl_core.data.splits import part_rows

SIZE = 64


def scene(seed: int) -> Image.Image:
    """Smooth blobs, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((2 * SIZE, 2 * SIZE), Image.Resampling.BICUBIC)


def decoded(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


def groups(images: list[NDArray[np.uint8]], labels: list[int] | None = None, contents: str = "") -> list[int]:
    names = list(contents) or [str(i) for i in range(len(images))]
    return group_near_duplicates(np.stack(images), np.array(labels or [0] * len(images)), names).tolist()


@pytest.mark.parametrize(
    "change",
    [
        as_jpeg,
        lambda image: image.resize((40, 40)),
        lambda image: image.point([min(255, 20 + i) for i in range(256)] * 3),
    ],
    ids=["saved again", "made smaller", "brighter"],
)
def test_a_changed_copy_is_found_among_others(change: Callable[[Image.Image], Image.Image]) -> None:
    found = groups([decoded(scene(0)), *(decoded(scene(seed)) for seed in range(1, 9)), decoded(change(scene(0)))])
    assert found[0] == found[-1]
    assert len(set(found)) == 9


def test_what_is_alike_by_way_of_another_is_one_group() -> None:
    one, other = (np.float64(decoded(scene(seed))) for seed in (0, 1))
    between = [np.uint8((1 - share) * one + share * other) for share in (0.0, 0.1, 0.2)]
    assert len(set(groups([between[0], between[2]]))) == 2
    assert len(set(groups(between))) == 1


def test_pictures_of_two_classes_are_not_compared() -> None:
    assert groups([decoded(scene(0)), decoded(scene(0))], [0, 1]) == [0, 1]


def test_identical_files_are_one_group_in_any_class() -> None:
    assert groups([decoded(scene(i)) for i in range(3)], [0, 1, 1], contents="aba") == [0, 1, 0]


def test_flat_pictures_have_nothing_to_compare() -> None:
    flat = [np.full((SIZE, SIZE, 3), level, dtype=np.uint8) for level in (10, 10, 200)]
    assert len(set(groups(flat))) == 3


def test_more_pictures_than_a_chunk_holds() -> None:
    some = [decoded(scene(seed)) for seed in range(30)]
    found = groups(some * 100)
    assert len(set(found)) == 30
    assert found[:30] == found[-30:]


def test_near_duplicates_are_in_the_same_half() -> None:
    twins = NOISE.images.copy()
    for first in range(0, len(twins), 2):
        twins[first + 1] = np.clip(twins[first].astype(int) + 3, 0, 255)
    hashes = tuple(content_hash(row) for row in range(len(twins)))
    data = replace(NOISE, images=twins, content_hashes=hashes)
    for part in ("search", "report"):
        rows = part_rows(data, part).tolist()  # type: ignore[arg-type]
        assert len(rows) == len(twins) // 2
        assert {row // 2 for row in rows} == {row // 2 for row in rows if row ^ 1 in rows}
