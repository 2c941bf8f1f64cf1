"""How often are two equal methods called different, and does the interval hold their difference on other images?

    python -m benchmarks.statistics.comparisons --data EuroSAT.zip --weights tf_efficientnet_lite0.safetensors

A method is the nearest class mean on some of a backbone's features, a pair of methods two disjoint random sets of them;
the second set is as large as the first, or smaller, which makes it worse. Their true difference is the mean over
episodes of all images. Then a small target is drawn many times, and the two are compared on its episodes by several
intervals: how often each leaves out 0, and how often it holds the true difference.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tl_core.data.dataset import load_dataset
from tl_core.networks.normalise import Normalise
from tl_core.networks.weights import load_weights
from tl_core.scoring.episodes import paired_difference
from tl_core.scoring.images import bootstrap
from tl_core.scoring.paired import lower_bound, paired_over_images

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

EPISODES = (40, 200, 1000)
N_TRUE, CHUNK = 600, 50
"""Episodes of all images behind a true difference, and how many are scored at a time."""


@dataclass(frozen=True)
class Shape:
    """Classes of a target, its images of each, and how many of those an episode learns from; it scores the others."""

    n_way: int
    n_images: int
    n_shot: int = 5


@dataclass(frozen=True)
class Scored:
    """Differences of a pair on a target: by episode, and by image with how often it was scored."""

    by_episode: Floats
    by_image: Floats
    sizes: Floats


Method = Callable[[Scored], tuple[float, float]]


def over_episodes(scored: Scored) -> tuple[float, float]:
    """Student's interval over episodes."""
    found = paired_difference(scored.by_episode, np.zeros_like(scored.by_episode))
    return found.low, found.high


def plain_bootstrap(scored: Scored) -> tuple[float, float]:
    """Percentile bootstrap of the images."""
    found = bootstrap(scored.by_image)
    return found.low, found.high


def bounds(scored: Scored) -> tuple[float, float]:
    """The gate's bound, from both sides."""
    return lower_bound(scored.by_image), -lower_bound(-scored.by_image)


def over_images(scored: Scored) -> tuple[float, float]:
    """The interval of `compare`."""
    found = paired_over_images(scored.by_image, scored.sizes)
    return found.low, found.high


METHODS: dict[str, Method] = {
    "over episodes (before)": over_episodes,
    "bootstrap of images": plain_bootstrap,
    "bounds from both sides": bounds,
    "over images (now)": over_images,
}


def load_features(data: str, weights: str, backbone: str, size: int) -> tuple[NDArray[np.float32], Rows]:
    """Features of all images, float32 (n, d), and their labels, int64 (n,)."""
    network, spec = load_weights(weights, backbone, size)
    dataset, normalise = load_dataset(data, size), Normalise(spec)
    parts = []
    with torch.no_grad():
        for start in range(0, len(dataset.labels), 64):
            pixels = torch.from_numpy(np.array(dataset.images[start : start + 64])).permute(0, 3, 1, 2)
            parts.append(network.eval()(normalise(pixels.float() / 255)).numpy())
    return np.concatenate(parts), dataset.labels


def hits(gram: NDArray[np.float32], support: Rows, queries: Rows, labels: Rows, shape: Shape) -> NDArray[np.bool_]:
    """Which queries have the nearest class mean of their own class: bool (e, q).

    Args:
        gram: inner products of all images, (n, n).
        support: rows (e, n_way * n_shot), by class; queries: rows (e, q); labels: (e, q), values 0 .. n_way - 1.
    """
    by_class = support.reshape(len(support), shape.n_way, shape.n_shot)
    closeness = gram[queries[:, :, None], support[:, None, :]]
    closeness = closeness.reshape(*queries.shape, shape.n_way, shape.n_shot).mean(3)
    squares = gram[by_class[:, :, :, None], by_class[:, :, None, :]].mean((2, 3))
    nearest = (squares[:, None] - 2 * closeness).argmin(2)
    found: NDArray[np.bool_] = nearest == labels
    return found


def draw(pools: Sequence[Rows], shape: Shape, n: int, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
    """Support rows, query rows and query labels of n episodes, (n, ...) each; what is no support is a query."""
    mixed = [rng.permuted(np.tile(pool, (n, 1)), axis=1) for pool in pools]
    support, queries = (
        [part[:, where] for part in mixed] for where in (slice(shape.n_shot), slice(shape.n_shot, None))
    )
    labels = np.repeat(np.arange(len(pools)), [part.shape[1] for part in queries])
    queries_of_all = np.concatenate(queries, axis=1)
    return np.concatenate(support, axis=1), queries_of_all, np.broadcast_to(labels, queries_of_all.shape)


def true_difference(grams: Sequence[NDArray[np.float32]], pools: Sequence[Rows], shape: Shape, seed: int) -> float:
    """Mean difference of a pair over episodes of all images."""
    rng, means = np.random.default_rng(seed), []
    for _ in range(N_TRUE // CHUNK):
        episodes = draw(pools, shape, CHUNK, rng)
        first, second = (hits(gram, *episodes, shape).mean() for gram in grams)
        means.append(float(first) - float(second))
    return float(np.mean(means))


def score(grams: Sequence[NDArray[np.float32]], pools: Sequence[Rows], shape: Shape, seed: int) -> dict[int, Scored]:
    """Compare a pair on the episodes of a target that is drawn from the pools, by number of episodes."""
    rng = np.random.default_rng(seed)
    target = [rng.choice(pool, shape.n_images, replace=False) for pool in pools]
    support, queries, labels = draw(target, shape, max(EPISODES), rng)
    first, second = (hits(gram, support, queries, labels, shape) for gram in grams)
    differences = first.astype(float) - second.astype(float)
    image = np.searchsorted(np.sort(np.concatenate(target)), queries)
    n_images = shape.n_way * shape.n_images
    found = {}
    for n in EPISODES:
        sizes = np.bincount(image[:n].ravel(), minlength=n_images)
        totals = np.bincount(image[:n].ravel(), weights=differences[:n].ravel(), minlength=n_images)
        found[n] = Scored(differences[:n].mean(1), totals / sizes, sizes.astype(float))
    return found


def compare(features: NDArray[np.float32], labels: Rows, shape: Shape, n_second: int, args: argparse.Namespace) -> None:
    """Print a row of the table for each method and number of episodes."""
    results = defaultdict(list)
    truths: list[float] = []
    seed = 0
    while len(truths) < args.pairs:
        seed += 1
        rng = np.random.default_rng([seed, n_second, shape.n_way])
        order, half = rng.permutation(features.shape[1]), features.shape[1] // 2
        grams = [features[:, some] @ features[:, some].T for some in (order[:half], order[half : half + n_second])]
        classes = rng.choice(labels.max() + 1, shape.n_way, replace=False)
        pools = [np.flatnonzero(labels == label) for label in classes]
        true = true_difference(grams, pools, shape, seed)
        if n_second == half and abs(true) > args.equal:
            continue
        for target in range(args.targets):
            truths.append(true)
            for n, scored in score(grams, pools, shape, 1000 * seed + target).items():
                for name, method in METHODS.items():
                    results[name, n].append((*method(scored), true))
    mean = f"{100 * np.mean(truths):+.1f}"
    for (name, n), rows in results.items():
        low, high, true_of = np.array(rows).T
        differs, holds = ((low > 0) | (high < 0)).mean(), ((low <= true_of) & (true_of <= high)).mean()
        width = 100 * np.median(high - low) / 2
        size = f"{shape.n_way} x {shape.n_images}"
        print(
            f"| {size} | {mean} | {n:,} | {name} | {100 * differs:.0f} | {100 * holds:.0f} | {width:.1f} |", flush=True
        )


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data spec")
    parser.add_argument("--weights", type=str, required=True, help="weights of the backbone")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--second", type=int, nargs="+", default=[640, 300, 150, 80], help="features of the second")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of methods times targets, for each row")
    parser.add_argument("--targets", type=int, default=4, help="targets drawn for each pair")
    parser.add_argument("--equal", type=float, default=0.004, help="true difference that counts as none")
    args = parser.parse_args()
    features, labels = load_features(args.data, args.weights, args.backbone, args.size)
    print("| target | true difference | episodes | interval | significant % | holds % | half-width |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for shape in (Shape(10, 12), Shape(5, 20)):
        for n_second in args.second:
            compare(features, labels, shape, n_second, args)


if __name__ == "__main__":
    main()
