"""Which images should be labelled next: some at random, or those that the classifier is least sure of?

    python -m benchmarks.statistics.label_next --data EuroSAT.zip --weights tf_efficientnet_lite0.safetensors

A draw starts with a few labelled images of each class and a pool of others. In each round a strategy picks images of
the pool, which are then labelled; the classifier is a logistic regression on a backbone's features. After the last
round it is scored on all images without a label, among which a strategy that picks hard ones leaves the easy ones, and
on those outside the pool; mean accuracies with 95 % intervals over draws, and differences to random picks.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from benchmarks.statistics.features import Floats, Ints, load_features, parser_of, print_table, scaled

C = 10.0
CANDIDATES = 5
"""Images that clusters are made of, for each image that is picked."""


@dataclass(frozen=True)
class Round:
    """What a strategy picks by.

    Attributes:
        features: float64 (n, d) of all images.
        labelled, pool: rows, int64 (l,) and (p,).
        labels: int64 (l,), of the labelled ones.
        probabilities: float64 (p, n_classes), of the pool.
    """

    features: Floats
    labelled: Ints
    pool: Ints
    labels: Ints
    probabilities: Floats


Strategy = Callable[[Round, int, np.random.Generator], Ints]


def at_random(now: Round, n: int, rng: np.random.Generator) -> Ints:
    """Any n rows of the pool."""
    return rng.choice(now.pool, n, replace=False)


def uncertainty(now: Round) -> Floats:
    """Rank in [0, 1] of each image of the pool by how close its two most probable classes are: (p,)."""
    first, second = np.sort(now.probabilities, axis=1)[:, :-3:-1].T
    found: Floats = rankdata(second - first) / len(first)
    return found


def unlikeness(now: Round) -> Floats:
    """Rank in [0, 1] of each image of the pool by its distance from the nearest class mean, in cosine: (p,)."""
    known, pool = now.features[now.labelled], now.features[now.pool]
    means = np.stack([known[now.labels == label].mean(0) for label in np.unique(now.labels)])
    cosines = (pool @ means.T) / np.linalg.norm(pool, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    found: Floats = rankdata(-cosines.max(1)) / len(pool)
    return found


def uncertain(now: Round, n: int, rng: np.random.Generator) -> Ints:  # noqa: ARG001 - a strategy's interface
    """The n most uncertain rows."""
    return now.pool[np.argsort(-uncertainty(now), kind="stable")[:n]]


def spread(now: Round, n: int, rng: np.random.Generator) -> Ints:
    """The most uncertain and unlike row of each of n clusters of those that are so most."""
    value = uncertainty(now) + unlikeness(now)
    best = np.argsort(-value, kind="stable")[: CANDIDATES * n]
    clusters = KMeans(n, n_init=3, random_state=int(rng.integers(2**31))).fit_predict(now.features[now.pool[best]])
    # Of each cluster the first, since they are sorted.
    return now.pool[best[np.unique(clusters, return_index=True)[1]]]


STRATEGIES: dict[str, Strategy] = {
    "at random": at_random,
    "uncertain": uncertain,
    "uncertain and unlike, spread": spread,
}


def accuracies(features: Floats, labels: Ints, seed: int, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Accuracy of each strategy in one draw, on all images without a label and on those outside the pool."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(labels.max() + 1, args.classes, replace=False)
    rows = rng.permutation(np.flatnonzero(np.isin(labels, classes)))
    features, labels = scaled(features[rows]), labels[rows]
    start = np.concatenate([np.flatnonzero(labels == label)[: args.shots] for label in np.unique(labels)])
    others = rng.permutation(np.setdiff1d(np.arange(len(labels)), start))
    # At least half of the images without a label are kept out of the pool.
    pool, outside = np.split(others, [min(args.pool, len(others) // 2)])
    found = {}
    for name, strategy in STRATEGIES.items():
        labelled, left, own = start, pool, np.random.default_rng(seed)
        for _ in range(args.rounds):
            model = LogisticRegression(C=C, max_iter=2000).fit(features[labelled], labels[labelled])
            now = Round(features, labelled, left, labels[labelled], model.predict_proba(features[left]))
            picked = strategy(now, args.picks, own)
            labelled, left = np.concatenate([labelled, picked]), np.setdiff1d(left, picked)
        model = LogisticRegression(C=C, max_iter=2000).fit(features[labelled], labels[labelled])
        hits = model.predict(features) == labels
        found[name] = (float(np.delete(hits, labelled).mean()), float(hits[outside].mean()))
    return found


def main() -> None:
    """Parse, draw, print."""
    parser = parser_of(__doc__)
    parser.add_argument("--shots", type=int, default=5, help="images of each class to start with")
    parser.add_argument("--pool", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--picks", type=int, default=10, help="images of a round")
    args = parser.parse_args()
    features, labels = load_features(args)
    results = defaultdict(list)
    for seed in range(args.draws):
        for name, pair in accuracies(features, labels, seed, args).items():
            results[name].append(pair)
    columns = ("accuracy on all without a label", "on those outside the pool")
    print_table("strategy", columns, {name: np.array(pairs).T for name, pairs in results.items()})


if __name__ == "__main__":
    main()
