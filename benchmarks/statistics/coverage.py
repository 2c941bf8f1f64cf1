"""Does the interval of `classify` hold the accuracy of the file that it delivers?

    python -m benchmarks.statistics.coverage --data EuroSAT.zip
    python -m benchmarks.statistics.coverage --data digits:target --weights pixels,random --size 32

Small folders are drawn from a data set: 4 to 8 classes of 5 to 40 images, half of them with classes of up to 8 times
as many images as others. In each the whole procedure of `classify` is run, 8 penalties on each of the weights at each
of their sizes, and its classifier is scored on all images that are left. The interval should hold that accuracy in
95 % of the folders.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pipelines.classify import PENALTIES
from pipelines.configs.data import OwnData
from pipelines.configs.network import ComparedNetworks
from pipelines.inputs.own_images import open_networks
from tl_core.crossvalidation.folds import Groups, assign_folds, plan_folds
from tl_core.crossvalidation.procedure import Candidate, LabelledFeatures, Procedure, run_procedure
from tl_core.recipes.choices import Priors
from tl_core.scoring.delivered import score_delivered
from tl_core.scoring.images import Interval

Ints = NDArray[np.int64]
Features = Mapping[str, torch.Tensor]
FEWEST, MOST, MOST_UNEVEN = 5, 40, 8


@dataclass(frozen=True)
class Folder:
    """Images of a drawn folder, and those of its classes that are left: rows of the data set, with their labels."""

    rows: Ints
    labels: Ints
    left: Ints
    left_labels: Ints
    is_uneven: bool


@dataclass(frozen=True)
class Checked:
    """An estimate beside the truth."""

    found: Interval
    truth: float


def draw_folder(labels: Ints, index: int) -> Folder:
    """Draw a folder; those of odd index have classes of unequal size."""
    rng = np.random.default_rng([index, 1])
    classes = rng.permutation(len(np.unique(labels)))[: int(rng.integers(4, 9))]
    counts, is_uneven = np.full(len(classes), round(np.exp(rng.uniform(np.log(FEWEST), np.log(MOST))))), index % 2 == 1
    if is_uneven:
        ratio = rng.uniform(2, MOST_UNEVEN)
        most = np.exp(rng.uniform(np.log(FEWEST * ratio), np.log(MOST)))
        counts = rng.permutation(np.maximum(FEWEST, most * ratio ** -np.linspace(0, 1, len(classes))).round())
    return take_folder(labels, classes, counts.astype(np.int64), rng, is_uneven)


def take_folder(labels: Ints, classes: Ints, counts: Ints, rng: np.random.Generator, is_uneven: bool) -> Folder:
    """Take a number of images of each of some classes, (n_classes,), by chance."""
    orders = [rng.permutation(np.flatnonzero(labels == one)) for one in classes]
    taken = [order[:count] for order, count in zip(orders, counts, strict=True)]
    left = [order[count:] for order, count in zip(orders, counts, strict=True)]
    names = np.arange(len(classes))
    return Folder(
        np.concatenate(taken),
        np.repeat(names, [len(some) for some in taken]),
        np.concatenate(left),
        np.repeat(names, [len(some) for some in left]),
        is_uneven,
    )


def compute_features(data: str, weights: str = "embedded", backbone: str = "", size: int = 0) -> tuple[Features, Ints]:
    """Features of one image of each group of near-duplicates by every network and size, and their labels, (n,)."""
    config = ComparedNetworks(weights=weights, backbone=backbone, image_size=size)
    networks = open_networks(OwnData(data=data), config, seed=0)
    dataset = next(iter(networks.values())).dataset
    rows = np.unique(dataset.near_duplicates, return_index=True)[1]  # a folder's near-duplicates are not new images
    features = {name: network.features(torch.device("cpu"))[rows] for name, network in networks.items()}
    return features, dataset.labels[rows]


def run_classify(matrices: Features, folder: Folder, priors: Priors, seed: int) -> Procedure:
    """Run the procedure of `classify` on a folder."""
    n, n_classes = len(folder.labels), int(folder.labels.max()) + 1
    data = LabelledFeatures.of({name: of[folder.rows] for name, of in matrices.items()}, folder.labels, n_classes)
    max_folds, n_repeats = plan_folds(n, n_classes)
    folds = assign_folds(folder.labels, Groups(np.arange(n), n), n_repeats, seed, max_folds)
    return run_procedure(data, [Candidate(name, l2) for name in matrices for l2 in PENALTIES], folds, priors)


def check_folder(matrices: Features, folder: Folder, index: int) -> dict[str, Checked]:
    """Estimate, deliver and score: accuracy and balanced accuracy beside the truth."""
    procedure = run_classify(matrices, folder, "data" if index % 4 == 3 else "balanced", index)
    recalls, shares = _recalls(matrices, folder, procedure), np.bincount(folder.labels) / len(folder.labels)
    scores = score_delivered(procedure.out_of_fold)
    return {
        "accuracy": Checked(scores.accuracy, float(shares @ recalls)),
        "balanced accuracy": Checked(scores.balanced_accuracy, float(recalls.mean())),
    }


def _recalls(matrices: Features, folder: Folder, procedure: Procedure) -> NDArray[np.float64]:
    """Recall of each class on the images that are left, with the delivered classifier."""
    classifier = procedure.classifier
    predicted = classifier.logits(matrices[classifier.candidate.features][folder.left]).argmax(1).numpy()
    right = np.bincount(folder.left_labels, weights=predicted == folder.left_labels)
    return np.asarray(right / np.bincount(folder.left_labels))


def print_row(name: str, checked: list[Checked]) -> None:
    """Print how often the interval holds the truth, its width, and the bias of the estimate."""
    holds = np.mean([one.found.low <= one.truth <= one.found.high for one in checked])
    width = np.mean([one.found.high - one.found.low for one in checked])
    differences = np.array([one.found.value - one.truth for one in checked])
    half = 1.96 * differences.std(ddof=1) / np.sqrt(len(checked))
    print(f"| {name} | {len(checked)} | {100 * holds:.1f} | {100 * width:.1f} | ", end="")
    print(f"{100 * differences.mean():+.2f} +- {100 * half:.2f} |", flush=True)


def main() -> None:
    """Draw, check, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data spec")
    parser.add_argument("--weights", default="embedded", help="weights, separated by commas")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--size", type=int, default=0, help="side of the images in pixels; 0 is as in classify")
    parser.add_argument("--folders", type=int, default=300)
    args = parser.parse_args()
    matrices, labels = compute_features(args.data, args.weights, args.backbone, args.size)
    results: dict[tuple[str, str], list[Checked]] = {}
    for index in tqdm(range(args.folders), disable=None):
        folder = draw_folder(labels, index)
        for name, checked in check_folder(matrices, folder, index).items():
            for kind in ("all", "uneven" if folder.is_uneven else "even"):
                results.setdefault((name, kind), []).append(checked)
    print("| score, folders | n | interval holds % | width, points | estimate - truth, points |\n|---|---|---|---|---|")
    for (name, kind), checked in results.items():
        print_row(f"{name}, {kind}", checked)


if __name__ == "__main__":
    main()
