"""Pictures that are nearly the same stay together, and others do not."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.tl_core.fewshot.test_finetuner import NOISE
from tests.tl_core.made_datasets import content_hash
from tl_core.data import near_duplicates
from tl_core.data.near_duplicates import ALIKE, SIDE, group_near_duplicates
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


def on_a_circle(angles: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Images of a thumbnail's size whose correlations are the cosines of the differences of these angles."""
    waves = 2 * np.pi * np.arange(SIDE) / SIDE
    shown = np.cos(waves + angles[:, None])[:, None, :, None]
    return np.broadcast_to(np.uint8(np.rint(128 + 100 * shown)), (len(angles), SIDE, SIDE, 3))


def first_of_group(found: NDArray[np.int64]) -> list[int]:
    """First row of each row's group, which is the same however groups are numbered."""
    return np.unique(found, return_index=True)[1][np.unique(found, return_inverse=True)[1]].tolist()


def groups_of_all_pairs(images: NDArray[np.uint8], labels: NDArray[np.int64], contents: list[str]) -> NDArray[np.int64]:
    """Follow the definition: join all pairs that are alike until nothing changes."""
    alike = (np.corrcoef(images[..., 0].reshape(len(images), -1)) > ALIKE) & (labels[:, None] == labels)
    alike |= np.array(contents)[:, None] == np.array(contents)
    groups = np.arange(len(images))
    while not np.array_equal(groups, lower := np.where(alike, groups, len(groups)).min(1)):
        groups = lower
    return groups


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    n_classes=st.integers(1, 3),
    spread=st.sampled_from([0.1, 1.0, 6.3, 30.0]),
    block=st.integers(1, 70),
)
def test_groups_are_those_of_all_pairs(
    monkeypatch: pytest.MonkeyPatch, seed: int, n: int, n_classes: int, spread: float, block: int
) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    rng = np.random.default_rng(seed)
    images, labels = on_a_circle(rng.uniform(0, spread, n)), rng.integers(0, n_classes, n)
    contents = [str(content) for content in rng.integers(0, 20 * n, n)]
    found = group_near_duplicates(images, labels, contents)
    assert first_of_group(found) == first_of_group(groups_of_all_pairs(images, labels, contents))


@pytest.mark.parametrize("order", ["in order", "from both ends", "shuffled"])
@pytest.mark.parametrize("block", [1, 3, 7, 50])
def test_a_chain_through_all_blocks_is_one_group_until_a_link_is_missing(
    monkeypatch: pytest.MonkeyPatch, block: int, order: str
) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    links = np.arange(50)
    if order == "from both ends":
        links = np.stack([links[:25], links[:24:-1]], axis=1).ravel()
    elif order == "shuffled":
        links = np.random.default_rng(0).permutation(links)
    contents = [str(link) for link in links]
    whole = group_near_duplicates(on_a_circle(0.1 * links), np.zeros(50, dtype=np.int64), contents)
    assert len(set(whole.tolist())) == 1
    rest = links != 20
    found = group_near_duplicates(on_a_circle(0.1 * links[rest]), np.zeros(49, dtype=np.int64), contents[:49])
    assert len(set(found.tolist())) == 2
    assert len(set(found[links[rest] < 20].tolist())) == 1


def test_memory_does_not_grow_with_the_pairs_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", 256)
    n = 4000
    angles = np.random.default_rng(0).uniform(0, 0.2, n)  # most are alike, and a few ends are so by way of others
    images, labels, contents = on_a_circle(angles), np.zeros(n, dtype=np.int64), [str(i) for i in range(n)]
    tracemalloc.start()
    found = group_near_duplicates(images, labels, contents)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(found.tolist())) == 1
    # A list of the pairs alone, 16 bytes for each, takes over 200.
    assert peak < 32 * 2**20


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
