"""Are the probabilities of the file that `classify` delivers true, and does the recommended bar keep its promise?

    python -m benchmarks.statistics.calibration --data EuroSAT.zip

Folders of a number of classes and of images in each are drawn from a data set. In each the whole procedure of
`classify` is run, and its classifier is scored on all images of these classes that are left: log loss and calibration
error with and without the temperature, and the share of right predictions above the bar that it recommends. `by chance`
is the calibration error that probabilities which are true to the letter show on as many images.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from benchmarks.statistics.coverage import Features, Folder, compute_features, run_classify, take_folder
from tl_core.scoring.classification import reliability
from tl_core.scoring.episodes import paired_difference
from tl_core.scoring.selective import recommend_bar

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Calibrated:
    """A draw's classifier on the images that are left; each pair is without and with the temperature.

    Attributes:
        log_losses: mean natural logarithms.
        errors: calibration errors, as shares.
        by_chance: calibration error of labels that are drawn from the probabilities with the temperature.
        precision: share right of the predictions above the recommended bar; None if none is recommended.
        answered: share of the images above that bar.
    """

    log_losses: tuple[float, ...]
    errors: tuple[float, ...]
    by_chance: float
    precision: float | None
    answered: float


def draw_even(labels: Ints, n_classes: int, n_images: int, seed: int) -> Folder:
    """Draw a folder with as many images in each class."""
    rng = np.random.default_rng([seed, n_classes, n_images])
    classes = rng.permutation(len(np.unique(labels)))[:n_classes]
    return take_folder(labels, classes, np.full(n_classes, n_images), rng, is_uneven=False)


def check(matrices: Features, folder: Folder, wanted: float, seed: int) -> Calibrated:
    """Deliver a classifier, and score it."""
    procedure = run_classify(matrices, folder, "balanced", seed)
    classifier, labels = procedure.classifier, torch.from_numpy(folder.left_labels)
    logits = classifier.logits(matrices[classifier.candidate.features][folder.left]).double()
    both = (logits * classifier.choice.temperature, logits)
    probabilities = logits.softmax(1)
    drawn = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
    bar = recommend_bar(procedure.out_of_fold, wanted)
    above = probabilities.amax(1) >= (2.0 if bar is None else bar)
    right = probabilities.argmax(1) == labels
    return Calibrated(
        log_losses=tuple(float(torch.nn.functional.cross_entropy(some, labels)) for some in both),
        errors=tuple(_error(some.softmax(1), labels) for some in both),
        by_chance=_error(probabilities, drawn),
        precision=float(right[above].double().mean()) if above.any() else None,
        answered=float(above.double().mean()),
    )


def _error(probabilities: Tensor, labels: Tensor) -> float:
    found, predicted = probabilities.max(1)
    return reliability(found.numpy(), (predicted == labels).numpy()).error


def print_row(shape: str, draws: list[Calibrated], wanted: float) -> None:
    """Print means over the draws, and how often the bar keeps its promise."""
    without, with_it = np.array([draw.log_losses for draw in draws]).T
    of_plain, of_file = 100 * np.array([draw.errors for draw in draws]).T
    by_chance = 100 * np.mean([draw.by_chance for draw in draws])
    difference = paired_difference(with_it, without)
    losses = f"{without.mean():.3f}, {with_it.mean():.3f} | {difference.mean:+.4f} +- {difference.ci95:.4f}"
    errors = f"{of_plain.mean():.1f}, {of_file.mean():.1f}, {by_chance:.1f} | {100 * (of_file <= 5).mean():.0f}"
    kept = [draw for draw in draws if draw.precision is not None]
    n_held = sum(draw.precision >= wanted for draw in kept)
    answered = f"{100 * np.mean([draw.answered for draw in kept]):.0f}" if kept else "-"
    print(f"| {shape} | {losses} | {errors} | {n_held} of {len(kept)} | {answered} |", flush=True)


def main() -> None:
    """Draw, check, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data spec")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--images", type=int, nargs="+", default=[5, 20, 60, 110], help="images of each class")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--wanted", type=float, default=0.95, help="share of right predictions that is wished for")
    args = parser.parse_args()
    matrices, labels = compute_features(args.data)
    print("| classes x images | log loss without, with temperature | with - without |", end="")
    print(" calibration error % without, with, by chance | at most 5 % | bar holds | answered % |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for n_classes, n_images in itertools.product(args.classes, args.images):
        if n_classes > len(np.unique(labels)) or n_images >= np.bincount(labels).min():
            continue
        draws = [
            check(matrices, draw_even(labels, n_classes, n_images, seed), args.wanted, seed)
            for seed in tqdm(range(args.draws), disable=None)
        ]
        print_row(f"{n_classes} x {n_images}", draws, args.wanted)


if __name__ == "__main__":
    main()
