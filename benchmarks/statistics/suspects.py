"""Which ranking finds images with a wrong label: confident learning, or the probability of the given label?

    python -m benchmarks.statistics.suspects --data EuroSAT.zip --weights tf_efficientnet_lite0.safetensors

From some classes some images are drawn, a share of their labels is changed to another class at random, and out-of-fold
probabilities of a logistic regression on a backbone's features rank the images. Of each ranking the precision among its
first k (k labels were changed) and the area under the ROC curve, with 95 % intervals over draws, and the difference to
the first one on the same draws.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from benchmarks.statistics.features import Floats, Ints, load_features, parser_of, print_table, scaled

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
FOLDS, CHOOSING = 10, 1000
"""Folds of a draw, and the seed of the draw that chooses the penalty, which is none of those reported."""


def draw(labels: Ints, args: argparse.Namespace, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Rows of a draw, their true labels and the given ones, of which a share is wrong: int64 (n,) each."""
    n_classes, n_images, share = args.classes, args.images, args.share
    classes = rng.choice(labels.max() + 1, n_classes, replace=False)
    rows = np.concatenate([rng.choice(np.flatnonzero(labels == one), n_images, replace=False) for one in classes])
    true = np.repeat(np.arange(n_classes), n_images)
    given = true.copy()
    wrong = rng.choice(len(rows), round(share * len(rows)), replace=False)
    given[wrong] = (true[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    return rows, true, given


def out_of_fold(features: Floats, given: Ints, c: float, seed: int) -> Floats:
    """Out-of-fold probabilities of a logistic regression with inverse penalty c, float64 (n, n_classes)."""
    folds, model = StratifiedKFold(FOLDS, shuffle=True, random_state=seed), LogisticRegression(C=c, max_iter=2000)
    found: Floats = cross_val_predict(model, scaled(features), given, cv=folds, method="predict_proba")
    return found


def margins(probabilities: Floats, given: Ints) -> Floats:
    """Probability of the given label less that of the most probable other class: (n,)."""
    rows, others = np.arange(len(given)), probabilities.copy()
    others[rows, given] = -np.inf
    found: Floats = probabilities[rows, given] - others.max(1)
    return found


def confident_learning(probabilities: Floats, given: Ints) -> Floats:
    """Off-diagonal of the confident joint by margin, then the rest by margin (Northcutt, Jiang and Chuang, 2021)."""
    thresholds = [probabilities[given == one, one].mean() for one in range(probabilities.shape[1])]
    reached = np.where(probabilities >= thresholds, probabilities, -np.inf)
    off_diagonal = np.isfinite(reached).any(1) & (reached.argmax(1) != given)
    found: Floats = margins(probabilities, given) - 2 * off_diagonal
    return found


def given_label(probabilities: Floats, given: Ints) -> Floats:
    """Probability of the given label."""
    found: Floats = probabilities[np.arange(len(given)), given]
    return found


RANKINGS: dict[str, Callable[[Floats, Ints], Floats]] = {
    "probability of the given label": given_label,
    "margin": margins,
    "confident learning, by margin": confident_learning,
}
"""Scores of (n,) images from probabilities (n, n_classes) and given labels (n,); low is suspect."""


def choose_penalty(features: Floats, labels: Ints, args: argparse.Namespace) -> float:
    """Inverse penalty with the least out-of-fold log loss against the given labels of a draw of its own."""
    rows, _, given = draw(labels, args, np.random.default_rng(CHOOSING))
    return min(PENALTIES, key=lambda c: log_loss(given, out_of_fold(features[rows], given, c, CHOOSING)))


def score(features: Floats, labels: Ints, c: float, args: argparse.Namespace) -> dict[str, Floats]:
    """Precision among the first k and area under the ROC curve by ranking and draw: (2, draws) each."""
    results = defaultdict(list)
    for seed in range(args.draws):
        rows, true, given = draw(labels, args, np.random.default_rng(seed))
        probabilities, wrong = out_of_fold(features[rows], given, c, seed), true != given
        for name, ranking in RANKINGS.items():
            scores = ranking(probabilities, given)
            first = np.argsort(scores, kind="stable")[: wrong.sum()]
            results[name].append((wrong[first].mean(), roc_auc_score(wrong, -scores)))
    return {name: np.array(pairs).T for name, pairs in results.items()}


def main() -> None:
    """Parse, draw, print."""
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=40, help="images of each class")
    parser.add_argument("--share", type=float, default=0.05, help="labels that are changed")
    args = parser.parse_args()
    features, labels = load_features(args)
    c = choose_penalty(features, labels, args)
    print(f"C={c:g}")
    print_table("ranking", ("precision", "AUROC"), score(features, labels, c, args))


if __name__ == "__main__":
    main()
