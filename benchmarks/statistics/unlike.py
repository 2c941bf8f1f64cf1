"""How well does the similarity to the nearest class mean tell images of no class from others, beside the probability?

    python -m benchmarks.statistics.unlike --data EuroSAT.zip flowers.zip --weights tf_efficientnet_lite0.safetensors

A draw takes half of a data set's classes and some images of each, as few-shot learning would, fits the linear head and
the class means to them, and scores other images: of these classes, of the classes that were left out (near), and of
the next data set (far). `refused` is the share below the score that 5 % of the known classes' images lie below; in the
last rows that threshold is the product's, found on the fitted images alone, and what it costs is measured: `loss`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from tl_core.data.dataset import load_dataset
from tl_core.heads.head import SolvedHead
from tl_core.heads.table import head_class
from tl_core.networks.backbones import with_features
from tl_core.networks.normalise import Normalise
from tl_core.networks.weights import load_weights
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import estimate
from tl_core.scoring.unlike import REFUSED, auroc, group_folds, know_classes, similarity
from tl_core.views.fixed import to_float

Features = NDArray[np.float32]
Labels = NDArray[np.int64]

MOST_SCORED = 500
"""Images of each kind that a draw scores."""


def load_features(data: str, args: argparse.Namespace) -> tuple[Features, Labels]:
    """Features of one image of each group of near-duplicates, float32 (n, d), and their labels, int64 (n,)."""
    network, spec = load_weights(args.weights, args.backbone, args.size)
    network, spec = with_features(network, spec, args.features)
    dataset, model = load_dataset(data, args.size), torch.nn.Sequential(Normalise(spec), network).eval()
    rows = np.sort(np.unique(dataset.near_duplicates, return_index=True)[1])
    with torch.no_grad():
        batches = (np.array(dataset.images[rows[start : start + 64]]) for start in range(0, len(rows), 64))
        parts = [model(to_float(torch.from_numpy(batch))).numpy() for batch in batches]
    return np.concatenate(parts), dataset.labels[rows]


def probabilities(support: Features, labels: Labels, queries: Features) -> NDArray[np.float64]:
    """Probability of each query's best class by the linear head, (n,)."""
    head, recipe = head_class("linear"), FinetuneRecipe()
    assert issubclass(head, SolvedHead)
    given = (torch.from_numpy(array)[None] for array in (support, labels, queries))
    logits = head.solve_episodes(*given, recipe.l2, recipe.label_smoothing)
    best: NDArray[np.float64] = logits[0].double().softmax(1).amax(1).numpy()
    return best


def split_draw(labels: Labels, n_shot: int, rng: np.random.Generator) -> tuple[Labels, Labels, Labels]:
    """Rows to fit, rows of the same classes, and rows of the other classes."""
    classes = rng.permutation(labels.max() + 1)[: (labels.max() + 2) // 2]
    mixed = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    near = rng.permutation(np.flatnonzero(~np.isin(labels, classes)))
    known = rng.permutation(np.concatenate([rows[n_shot:] for rows in mixed]))
    return np.concatenate([rows[:n_shot] for rows in mixed]), known[:MOST_SCORED], near[:MOST_SCORED]


def score_draw(features: Features, labels: Labels, far: Features, n_shot: int, seed: int) -> Mapping[str, float]:
    """Areas, refused shares and losses of one draw, by what they are of."""
    rng = np.random.default_rng([seed, n_shot])
    fitted, known, near = split_draw(labels, n_shot, rng)
    support, (_, classes) = features[fitted], np.unique(labels[fitted], return_inverse=True)
    queries = {"known": features[known], "near": features[near], "far": rng.permutation(far)[:MOST_SCORED]}
    classes_known = know_classes(support, classes, group_folds(classes, np.arange(len(classes)), seed=seed))
    scores = {
        "similarity": {kind: similarity(some, classes_known.means) for kind, some in queries.items()},
        "probability": {kind: probabilities(support, classes, some) for kind, some in queries.items()},
    }
    found = {}
    for score, of in scores.items():
        threshold = np.quantile(of["known"], REFUSED)
        for kind in ("near", "far"):
            found[f"{score}, AUROC, {kind}"] = auroc(of["known"], of[kind])
            found[f"{score}, refused, {kind}"] = float((of[kind] < threshold).mean())
    for kind, values in scores["similarity"].items():
        name = "loss" if kind == "known" else f"refused, {kind}"
        found[f"similarity, own threshold, {name}"] = float((values < (classes_known.unlike_below or -1.0)).mean())
    return found


def measure(name: str, features: Features, labels: Labels, far: Features, args: argparse.Namespace) -> None:
    """Print the table's rows of one data set."""
    for n_shot in args.shots:
        results = defaultdict(list)
        for seed in range(args.draws):
            for what, value in score_draw(features, labels, far, n_shot, seed).items():
                results[what].append(value)
        for what, values in results.items():
            print(f"| {name} | {n_shot} | {what} | {estimate(values).percent()} |", flush=True)


def main() -> None:
    """Parse, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", required=True, help="two or more data specs; each is far from the one before"
    )
    parser.add_argument("--weights", required=True, help="weights of the backbone")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--features", choices=["last", "stages"], default="stages")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 20], help="fitted images of each class")
    parser.add_argument("--draws", type=int, default=60)
    args = parser.parse_args()
    loaded = [load_features(data, args) for data in args.data]
    print("| data | images of each class | what | mean over draws |\n|---|---|---|---|")
    for position, (features, labels) in enumerate(loaded):
        far, _ = loaded[(position + 1) % len(loaded)]
        measure(args.data[position], features, labels, far, args)


if __name__ == "__main__":
    main()
