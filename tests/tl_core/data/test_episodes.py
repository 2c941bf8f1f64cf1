"""Episodes: disjoint, stratified, reproducible, whatever was drawn before."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tl_core.made_datasets import dataset_of_counts
from tl_core.data.dataset import ImageDataset
from tl_core.data.episodes import Episode, EpisodePool, build_pool, check_pool, fit_shape, sample_episode
from tl_core.data.splits import part_rows
from tl_core.errors import InputError
from tl_core.recipes.choices import Part
from tl_core.recipes.episode import EpisodeShape


def plain(episode: Episode) -> dict[str, object]:
    """An episode in a form that `==` compares."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(episode).items()}


PARTS: st.SearchStrategy[Part] = st.sampled_from(["search", "report", "all"])


@st.composite
def draws(draw: st.DrawFn) -> tuple[ImageDataset, Part, EpisodeShape, int, int]:
    """A dataset, a part of it, a shape that fits, a seed and an index."""
    shape = EpisodeShape(draw(st.integers(2, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    needed = 2 * (shape.n_shot + shape.n_query)
    counts = draw(st.lists(st.integers(needed, needed + 15), min_size=shape.n_way, max_size=shape.n_way + 3))
    part = draw(PARTS)
    return dataset_of_counts(counts), part, shape, draw(st.integers(0, 2**32)), draw(st.integers(0, 10_000))


@settings(deadline=None)
@given(draw=draws())
def test_no_row_is_in_support_and_query_or_twice(draw: tuple[ImageDataset, Part, EpisodeShape, int, int]) -> None:
    dataset, part, shape, seed, index = draw
    episode = sample_episode(build_pool(dataset, part), shape, seed, index)
    rows = [*episode.support_rows.tolist(), *episode.query_rows.tolist()]
    assert len(set(rows)) == len(rows) == shape.n_way * (shape.n_shot + shape.n_query)


@settings(deadline=None)
@given(draw=draws())
def test_every_class_has_n_shot_and_n_query_images(draw: tuple[ImageDataset, Part, EpisodeShape, int, int]) -> None:
    dataset, part, shape, seed, index = draw
    episode = sample_episode(build_pool(dataset, part), shape, seed, index)
    assert Counter(episode.support_labels.tolist()) == dict.fromkeys(range(shape.n_way), shape.n_shot)
    assert Counter(episode.query_labels.tolist()) == dict.fromkeys(range(shape.n_way), shape.n_query)


@settings(deadline=None)
@given(draw=draws())
def test_labels_are_positions_in_the_drawn_classes(draw: tuple[ImageDataset, Part, EpisodeShape, int, int]) -> None:
    dataset, part, shape, seed, index = draw
    episode = sample_episode(build_pool(dataset, part), shape, seed, index)
    classes = np.array(episode.class_ids)
    assert len(set(episode.class_ids)) == shape.n_way
    np.testing.assert_array_equal(classes[episode.support_labels], dataset.labels[episode.support_rows])
    np.testing.assert_array_equal(classes[episode.query_labels], dataset.labels[episode.query_rows])


@settings(deadline=None)
@given(draw=draws())
def test_only_rows_of_the_pool_are_drawn(draw: tuple[ImageDataset, Part, EpisodeShape, int, int]) -> None:
    dataset, part, shape, seed, index = draw
    episode = sample_episode(build_pool(dataset, part), shape, seed, index)
    assert {*episode.support_rows.tolist(), *episode.query_rows.tolist()} <= set(part_rows(dataset, part).tolist())


@settings(deadline=None)
@given(draw=draws())
def test_an_episode_is_the_same_whatever_was_drawn_before(
    draw: tuple[ImageDataset, Part, EpisodeShape, int, int],
) -> None:
    dataset, part, shape, seed, index = draw
    alone = sample_episode(build_pool(dataset, part), shape, seed, index)
    pool = build_pool(dataset, part)
    sample_episode(pool, shape, seed, index + 1)
    sample_episode(pool, shape, seed + 1, index)
    assert plain(sample_episode(pool, shape, seed, index)) == plain(alone)


SHAPE = EpisodeShape(n_way=3, n_shot=2, n_query=4)


@pytest.fixture
def pool() -> EpisodePool:
    """Five classes of twenty images."""
    return build_pool(dataset_of_counts([20] * 5), "all")


def test_two_orders_of_drawing_give_the_same_episodes(pool: EpisodePool) -> None:
    forwards = [plain(sample_episode(pool, SHAPE, 0, index)) for index in range(10)]
    backwards = [plain(sample_episode(pool, SHAPE, 0, index)) for index in reversed(range(10))]
    assert forwards == backwards[::-1]


def test_episodes_differ_by_index_and_by_seed(pool: EpisodePool) -> None:
    episodes = [sample_episode(pool, SHAPE, seed, index) for seed in range(10) for index in range(10)]
    assert len({tuple(episode.support_rows.tolist()) for episode in episodes}) == 100
    assert len({episode.seed for episode in episodes}) == 100


def test_seed_and_index_are_not_interchangeable(pool: EpisodePool) -> None:
    first, second = sample_episode(pool, SHAPE, 1, 2), sample_episode(pool, SHAPE, 2, 1)
    assert first.support_rows.tolist() != second.support_rows.tolist()


def test_the_seed_of_an_episode_is_a_63_bit_number(pool: EpisodePool) -> None:
    seeds = [sample_episode(pool, SHAPE, 0, index).seed for index in range(50)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**60


def test_every_image_and_every_class_is_drawn_about_as_often(pool: EpisodePool) -> None:
    episodes = [sample_episode(pool, SHAPE, 0, index) for index in range(500)]
    classes = Counter(class_id for episode in episodes for class_id in episode.class_ids)
    supports = Counter(row for episode in episodes for row in episode.support_rows.tolist())
    assert all(250 <= classes[class_id] <= 350 for class_id in range(5))  # 300 expected
    assert all(10 <= supports[row] <= 60 for row in range(100))  # 30 expected


def test_the_fingerprint_differs_by_part_and_by_data() -> None:
    first, second = dataset_of_counts([20, 20]), dataset_of_counts([20, 21])
    pools = [build_pool(dataset, part) for dataset in (first, second) for part in ("search", "report", "all")]
    assert len({pool.fingerprint for pool in pools}) == 6


def test_the_parts_give_pools_without_a_common_row() -> None:
    dataset = dataset_of_counts([20, 20])
    search, report = (np.concatenate(build_pool(dataset, part).rows_by_class) for part in ("search", "report"))
    assert not set(search.tolist()) & set(report.tolist())


def test_a_pool_lists_the_rows_of_each_class() -> None:
    dataset = dataset_of_counts([5, 7])
    for label, rows in enumerate(build_pool(dataset, "all").rows_by_class):
        np.testing.assert_array_equal(rows, np.flatnonzero(dataset.labels == label))


def test_more_ways_than_classes_are_refused_with_both_numbers(pool: EpisodePool) -> None:
    with pytest.raises(InputError, match="n_way is 6, but the target has 5 classes"):
        sample_episode(pool, EpisodeShape(n_way=6), 0, 0)


def test_too_few_images_are_refused_with_both_numbers() -> None:
    small = build_pool(dataset_of_counts([20, 9, 20]), "all")
    with pytest.raises(InputError, match=r"class1 has 9 images .* n_shot \+ n_query is 10"):
        check_pool(small, EpisodeShape(n_way=2, n_shot=4, n_query=6))


def test_exactly_enough_images_are_enough() -> None:
    small = build_pool(dataset_of_counts([10, 10]), "all")
    episode = sample_episode(small, EpisodeShape(n_way=2, n_shot=4, n_query=6), 0, 0)
    assert sorted([*episode.support_rows.tolist(), *episode.query_rows.tolist()]) == list(range(20))


@pytest.mark.parametrize("shape", [(1, 5, 15), (-2, 5, 15), (5, -1, 15), (5, 5, -1)])
def test_a_shape_without_sense_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        EpisodeShape(*shape)


@pytest.mark.parametrize(
    ("smallest", "asked", "given"),
    [
        (20, (0, 0, 0), (3, 5, 15)),
        (400, (0, 0, 0), (3, 5, 15)),
        (19, (0, 0, 0), (3, 5, 14)),
        (8, (0, 0, 0), (3, 4, 4)),
        (3, (0, 0, 0), (3, 1, 2)),
        (2, (0, 0, 0), (3, 1, 1)),
        (12, (2, 0, 10), (2, 2, 10)),
        (12, (0, 9, 0), (3, 9, 3)),
        (12, (2, 3, 4), (2, 3, 4)),
    ],
)
def test_open_numbers_take_what_the_smallest_class_can_give(
    smallest: int, asked: tuple[int, int, int], given: tuple[int, int, int]
) -> None:
    pool = build_pool(dataset_of_counts([smallest + 2, smallest, smallest + 1]), "all")
    settled = fit_shape(pool, EpisodeShape(*asked))
    assert settled == EpisodeShape(*given)
    check_pool(pool, settled)


def test_a_class_with_a_single_image_still_makes_no_episode() -> None:
    pool = build_pool(dataset_of_counts([4, 1]), "all")
    with pytest.raises(InputError, match=r"has 1 image in this part of the target, but n_shot \+ n_query is 2"):
        check_pool(pool, fit_shape(pool, EpisodeShape(0, 0, 0)))


def twice(counts: list[int]) -> EpisodePool:
    """A pool in which the images of a class are pairs of near-duplicates."""
    pool = build_pool(dataset_of_counts(counts), "all")
    alike = np.empty_like(pool.alike)
    for label, rows in enumerate(pool.rows_by_class):
        alike[rows] = 1000 * label + np.arange(len(rows)) // 2
    return replace(pool, alike=alike)


@given(index=st.integers(0, 1000))
def test_of_near_duplicates_an_episode_has_one(index: int) -> None:
    pool, shape = twice([20, 20, 20]), EpisodeShape(3, 4, 6)
    episode = sample_episode(pool, shape, 0, index)
    rows = np.concatenate([episode.support_rows, episode.query_rows])
    assert len(np.unique(pool.alike[rows])) == len(rows) == 30
    labels = np.concatenate([episode.support_labels, episode.query_labels])
    assert all(row in pool.rows_by_class[episode.class_ids[label]] for row, label in zip(rows, labels, strict=True))


def test_both_images_of_a_pair_are_drawn_in_some_episode() -> None:
    pool = twice([20, 20, 20])
    episodes = [sample_episode(pool, EpisodeShape(3, 4, 6), 0, index) for index in range(40)]
    assert len({*np.concatenate([e.support_rows for e in episodes]).tolist()}) == 60


def test_an_episode_without_near_duplicates_is_drawn_as_if_there_were_none() -> None:
    pool, shape = build_pool(dataset_of_counts([20, 20, 20]), "all"), EpisodeShape(3, 2, 2)
    episode = sample_episode(pool, shape, 0, 0)
    others = np.setdiff1d(np.arange(60), np.concatenate([episode.support_rows, episode.query_rows]))
    alike = pool.alike.copy()
    alike[others[:2]] = alike[others[0]]
    assert plain(sample_episode(replace(pool, alike=alike), shape, 0, 0)) == plain(episode)


def test_near_duplicates_count_once_where_images_are_missing() -> None:
    assert fit_shape(twice([12, 20]), EpisodeShape(0, 0, 0)).n_shot == 3
    with pytest.raises(InputError, match=r"has 6 images \(12 with near-duplicates\) .* is 7 \(1 missing\)"):
        check_pool(twice([12, 20]), EpisodeShape(2, 3, 4))
