"""Which rows go where: disjoint, complete, in every class, and fixed by seed or by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tl_core.made_datasets import dataset_of_counts, made_dataset
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.data.splits import ClassSplit, part_rows, split_for_training, split_within_classes
from tl_core.errors import InputError

COUNTS = st.lists(st.integers(3, 30), min_size=2, max_size=6)
SHARES = st.floats(0, 1)
SEEDS = st.integers(0, 2**32)


def parts_of(split: ClassSplit) -> list[list[int]]:
    return [split.train.tolist(), split.val.tolist(), split.test.tolist()]


@settings(deadline=None)
@given(counts=COUNTS, val=SHARES, test=SHARES, seed=SEEDS)
def test_the_three_parts_hold_every_row_once(counts: list[int], val: float, test: float, seed: int) -> None:
    split = split_within_classes(dataset_of_counts(counts), val, test, seed)
    rows = [row for part in parts_of(split) for row in part]
    assert sorted(rows) == list(range(sum(counts)))


@settings(deadline=None)
@given(counts=COUNTS, val=SHARES, test=SHARES, seed=SEEDS)
def test_every_class_is_in_every_part(counts: list[int], val: float, test: float, seed: int) -> None:
    dataset = dataset_of_counts(counts)
    for part in parts_of(split_within_classes(dataset, val, test, seed)):
        assert set(dataset.labels[part].tolist()) == set(range(len(counts)))


@settings(deadline=None)
@given(counts=COUNTS, val=SHARES, test=SHARES, seed=SEEDS)
def test_the_same_seed_gives_the_same_parts(counts: list[int], val: float, test: float, seed: int) -> None:
    dataset = dataset_of_counts(counts)
    first, second = (split_within_classes(dataset, val, test, seed) for _ in range(2))
    assert parts_of(first) == parts_of(second)


def test_another_seed_gives_other_parts() -> None:
    dataset = dataset_of_counts([20, 20])
    first, second = (split_within_classes(dataset, 0.2, 0.2, seed) for seed in (0, 1))
    assert parts_of(first) != parts_of(second)


def test_the_fractions_are_those_of_each_class() -> None:
    dataset = dataset_of_counts([10, 20, 40])
    split = split_within_classes(dataset, 0.2, 0.3, seed=0)
    counted = [np.bincount(dataset.labels[part]).tolist() for part in parts_of(split)]
    assert counted == [[5, 10, 20], [2, 4, 8], [3, 6, 12]]


def test_the_rows_of_a_class_are_mixed_before_they_are_split() -> None:
    split = split_within_classes(made_dataset([0] * 50 + [1] * 50), 0.2, 0.2, seed=0)
    assert split.test[:10].tolist() != list(range(40, 50))


def test_a_class_of_two_images_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"class1 of made has 2 image.*at least 3"):
        split_within_classes(dataset_of_counts([3, 2]), 0.2, 0.2, seed=0)


# Few different contents: most files have copies, in their own class or in another.
ROWS_WITH_COPIES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=2, max_size=40)


@settings(deadline=None)
@given(rows=ROWS_WITH_COPIES)
def test_search_and_report_are_disjoint_and_together_all(rows: list[tuple[int, int]]) -> None:
    dataset = made_dataset(*zip(*rows, strict=True))
    search, report = (part_rows(dataset, part).tolist() for part in ("search", "report"))
    assert sorted(search + report) == part_rows(dataset, "all").tolist() == list(range(len(rows)))


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_each_part_has_half_of_each_class(counts: list[int]) -> None:
    dataset = dataset_of_counts(counts)
    search = np.bincount(dataset.labels[part_rows(dataset, "search")], minlength=len(counts))
    assert search.tolist() == [count // 2 for count in counts]


@settings(deadline=None)
@given(rows=ROWS_WITH_COPIES)
def test_copies_in_one_class_are_in_the_same_part(rows: list[tuple[int, int]]) -> None:
    dataset = made_dataset([label for label, _ in rows], rows)
    search, report = ({rows[row] for row in part_rows(dataset, part)} for part in ("search", "report"))
    assert not search & report


@settings(deadline=None)
@given(rows=ROWS_WITH_COPIES)
def test_copies_in_two_classes_are_in_the_same_part(rows: list[tuple[int, int]]) -> None:
    dataset = made_dataset(*zip(*rows, strict=True))
    search, report = ({rows[row][1] for row in part_rows(dataset, part)} for part in ("search", "report"))
    assert not search & report


@settings(deadline=None)
@given(counts=COUNTS, order=st.randoms(use_true_random=False))
def test_the_parts_depend_on_the_contents_and_not_on_their_order(counts: list[int], order: Random) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    rows = list(enumerate(labels))
    dataset = made_dataset(labels)
    order.shuffle(rows)
    shuffled = made_dataset([label for _, label in rows], [content for content, _ in rows])
    expected = set(part_rows(dataset, "search").tolist())
    assert {rows[row][0] for row in part_rows(shuffled, "search")} == expected


def test_no_seed_decides_but_the_order_of_the_hashes() -> None:
    dataset = dataset_of_counts([20, 20])
    for label in range(2):
        search, report = (
            [dataset.content_hashes[row] for row in part_rows(dataset, part) if dataset.labels[row] == label]
            for part in ("search", "report")
        )
        assert max(search) < min(report)


def laid_out(rows: Sequence[tuple[str, int]], contents: Sequence[object] | None = None) -> ImageDataset:
    """A dataset of rows (part, label)."""
    return replace(made_dataset([label for _, label in rows], contents), parts=tuple(part for part, _ in rows))


THREE_PARTS = [(part, label) for part in ("train", "val", "test") for label in (0, 1) for _ in range(4)]


def test_the_parts_of_a_layout_are_taken_as_they_are() -> None:
    dataset = laid_out(THREE_PARTS)
    for rule in ("auto", "layout"):
        split = split_for_training(dataset, rule, 0.1, 0.1, seed=0)  # type: ignore[arg-type]
        assert parts_of(split) == [list(range(8)), list(range(8, 16)), list(range(16, 24))]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_of_two_parts_the_second_is_the_test_part_and_validation_comes_from_training(held_out: str) -> None:
    dataset = laid_out([("train", label) for label in (0, 1) for _ in range(10)] + [(held_out, 0), (held_out, 1)])
    split = split_for_training(dataset, "auto", 0.2, 0.5, seed=0)
    assert split.test.tolist() == [20, 21]
    assert np.bincount(dataset.labels[split.val]).tolist() == [2, 2]
    assert sorted([*split.train, *split.val]) == list(range(20))


def test_a_layout_may_be_ignored_and_one_part_alone_is_none() -> None:
    one_part = laid_out([("train", label) for label in (0, 1) for _ in range(10)])
    expected = parts_of(split_within_classes(one_part, 0.2, 0.3, seed=0))
    assert parts_of(split_for_training(one_part, "auto", 0.2, 0.3, seed=0)) == expected
    dataset = laid_out(THREE_PARTS)
    expected = parts_of(split_within_classes(dataset, 0.2, 0.3, seed=0))
    assert parts_of(split_for_training(dataset, "random", 0.2, 0.3, seed=0)) == expected


def test_no_image_is_on_both_sides_even_as_a_copy() -> None:
    contents = [*range(8), 0, *range(9, 16), 1, 9, *range(18, 24)]
    dataset = laid_out(THREE_PARTS, contents)
    split = split_for_training(dataset, "auto", 0.1, 0.1, seed=0)
    assert split.test.tolist() == list(range(16, 24))  # 16 is a copy of row 1, 17 of row 9
    assert split.val.tolist() == [8, *range(10, 16)]  # 8 is a copy of row 0
    assert split.train.tolist() == list(range(2, 8))


@settings(deadline=None)
@given(rows=ROWS_WITH_COPIES, seed=SEEDS)
def test_copies_never_cross_a_random_split(rows: list[tuple[int, int]], seed: int) -> None:
    # Of every class enough without copies, so that no part is empty.
    rows = rows + [(label, 100 + 60 * label + i) for label in range(3) for i in range(60)]
    dataset = made_dataset([label for label, _ in rows], [content for _, content in rows])
    split = split_for_training(dataset, "random", 0.2, 0.2, seed)
    hashes = [{dataset.content_hashes[row] for row in part} for part in parts_of(split)]
    assert len(hashes[0] | hashes[1] | hashes[2]) == sum(map(len, hashes))


@settings(deadline=None)
@given(counts=COUNTS, val=SHARES, test=SHARES, seed=SEEDS)
def test_images_that_stand_alone_are_split_as_without_groups(
    counts: list[int], val: float, test: float, seed: int
) -> None:
    dataset = dataset_of_counts(counts)
    alone = np.arange(sum(counts))
    plain, grouped = (split_within_classes(dataset, val, test, seed, groups) for groups in (None, alone))
    assert parts_of(plain) == parts_of(grouped)


@settings(deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=6, max_size=12), min_size=2, max_size=4),
    val=st.floats(0, 0.3),
    test=st.floats(0, 0.3),
    seed=SEEDS,
)
@example(sizes=[[1, 1, 1, 1, 2, 6], [1] * 6], val=0.25, test=0.296875, seed=0)  # half of a class shows one thing
def test_groups_are_never_parted_and_no_image_is_lost(
    sizes: list[list[int]], val: float, test: float, seed: int
) -> None:
    counts = [sum(of_class) for of_class in sizes]
    labels = np.repeat(np.arange(len(sizes)), counts)
    groups = np.repeat(np.arange(sum(map(len, sizes))), [size for of_class in sizes for size in of_class])
    order = np.random.default_rng(0).permutation(len(labels))
    dataset, groups = made_dataset(labels[order].tolist()), groups[order]
    split = split_within_classes(dataset, val, test, seed, groups)
    assert sorted(row for part in parts_of(split) for row in part) == list(range(len(labels)))
    members = [set(groups[part].tolist()) for part in parts_of(split)]
    assert sum(map(len, members)) == len(np.unique(groups))
    for label, count in enumerate(counts):
        n_test = int((dataset.labels[split.test] == label).sum())
        assert 1 <= n_test < max(1, round(test * count)) + 6, "as many as asked for, and less than a group more"


def test_the_seed_draws_the_validation_images_of_a_layout() -> None:
    dataset = laid_out([("train", row % 2) for row in range(40)] + [("test", 0), ("test", 1)])
    first, again, other = (split_for_training(dataset, "layout", 0.2, 0.2, seed) for seed in (0, 0, 1))
    assert first.val.tolist() == again.val.tolist() != other.val.tolist()
    assert first.test.tolist() == other.test.tolist() == [40, 41]


def test_a_class_that_shows_two_things_is_not_split() -> None:
    dataset = made_dataset([0] * 8 + [1] * 8)
    groups = np.array([0] * 4 + [1] * 4 + list(range(2, 10)))
    with pytest.raises(InputError, match="class0 of made has 8 images, but fewer than 3 that do not show the same"):
        split_within_classes(dataset, 0.2, 0.2, 0, groups)


def test_near_duplicates_are_in_one_part_of_a_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(30):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
                (64, 64), Image.Resampling.BICUBIC
            )
            image.save(tmp_path / label / f"{i}.png")
            image.save(tmp_path / label / f"{i}.jpg", quality=90)  # saved again: another file, the same picture
    dataset = load_dataset(str(tmp_path), 32, cache_dir=tmp_path / "cache")
    split = split_for_training(dataset, "random", 0.2, 0.2, seed=0)
    names = [{dataset.file_names[row].rpartition(".")[0] for row in part} for part in parts_of(split)]
    assert len(names[0] | names[1] | names[2]) == sum(map(len, names)) == 60
    assert len(split.train) + len(split.val) + len(split.test) == 120


def test_a_fingerprint_says_which_rows_are_where() -> None:
    one, other = np.array([0, 1]), np.array([2])
    splits = [ClassSplit(one, other, other), ClassSplit(other, one, other), ClassSplit(one, other, other)]
    assert splits[0].fingerprint == splits[2].fingerprint != splits[1].fingerprint


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("train", 0), ("train", 0), ("test", 0), ("test", 1)], "test part of made has classes .* lacks: class1"),
        ([("train", 0), ("val", 1), ("test", 0)], "val part of made has classes .* lacks: class1"),
        ([("train", 0), ("train", 1), ("test", 0), ("", 1)], "1 images of made are in none of its parts"),
        ([("train", 0), ("train", 1)], "expected folders train, val and test .* got train"),
        ([("", 0), ("", 1)], "got class folders alone"),
        ([("train", 0), ("train", 1), ("train", 1), ("test", 1)], "class0 of made has 1 training image"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(rows: list[tuple[str, int]], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        split_for_training(laid_out(rows), "layout", 0.1, 0.1, seed=0)
