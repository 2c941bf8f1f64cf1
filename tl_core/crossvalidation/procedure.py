"""The whole procedure that makes a classifier from frozen features, and its cross-validation.

Of several candidates the one with the least log loss on inner folds is chosen, a temperature is fitted to the inner
out-of-fold logits, and the head is fitted to all images that may be used. Inside every fold all of this is done anew
without the fold's images (nested cross-validation: Varma and Simon, 2006), so the estimate includes
what choosing costs.

The inner fits are shared: a fit that lacks the folds f and g predicts g inside f, and f inside g. So k folds take
k * (k + 1) / 2 fits of a candidate, not k^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tl_core.crossvalidation.choice import Choice, choose
from tl_core.crossvalidation.folds import Folds
from tl_core.crossvalidation.solver import SharedPoints, Solutions
from tl_core.errors import InputError
from tl_core.heads.classifier import average_views
from tl_core.heads.shares import class_shifts, image_weights
from tl_core.recipes.choices import Priors
from tl_core.scoring.out_of_fold import OutOfFold

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Candidate:
    """One way to make the classifier: which features, and the strength of the head's penalty."""

    features: str
    l2: float


@dataclass(frozen=True)
class LabelledFeatures:
    """Frozen features of n labelled images, by several backbones, sizes or views.

    Attributes:
        matrices: by name float (n, n_views, d); n_views and d may differ from one to the other.
        labels: int64 (n,), values 0 .. n_classes - 1.
    """

    matrices: Mapping[str, Tensor]
    labels: Tensor
    n_classes: int

    @classmethod
    def of(cls, matrices: Mapping[str, Tensor], labels: Ints, n_classes: int) -> LabelledFeatures:
        """Take matrices (n, n_views, d), or (n, d) of a single view.

        Raises:
            InputError: a matrix of another number of images, or with values that are not finite.
        """
        for name, matrix in matrices.items():
            if len(matrix) != len(labels):
                raise InputError(f"expected features of {len(labels)} images in {name!r}, got {len(matrix)}")
            if not bool(matrix.isfinite().all()):
                raise InputError(f"expected finite features in {name!r}, got NaN or infinity; try other weights")
        with_views = {name: of if of.ndim == 3 else of[:, None] for name, of in matrices.items()}
        return cls(with_views, torch.from_numpy(labels), n_classes)


@dataclass(frozen=True)
class FinalClassifier:
    """The head that is delivered, fitted to all images.

    Attributes:
        choice: position of the chosen candidate, and the temperature.
        candidate: the one that was chosen.
        weight: float (n_classes, d); bias: float (n_classes,).
        centre: float (d,); scale: float (). As in `FewShotHead`.
        log_losses: float64 (n_candidates,), each candidate's on the folds, before any temperature.
    """

    choice: Choice
    candidate: Candidate
    weight: Tensor
    bias: Tensor
    centre: Tensor
    scale: Tensor
    log_losses: NDArray[np.float64]

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, n_classes), divided by the temperature, of float (n, n_views, d) or (n, d)."""
        views = features if features.ndim == 3 else features[:, None]
        of_views = (views - self.centre) / self.scale @ self.weight.T + self.bias
        return average_views(of_views.movedim(1, 0)) / self.choice.temperature


@dataclass(frozen=True)
class Procedure:
    """Result of the procedure: the classifier, and predictions that say how good it is.

    Attributes:
        alone: by features, predictions of the same procedure with their candidates alone.
    """

    candidates: tuple[Candidate, ...]
    classifier: FinalClassifier
    out_of_fold: OutOfFold
    alone: Mapping[str, OutOfFold]


def run_procedure(data: LabelledFeatures, candidates: Sequence[Candidate], folds: Folds, priors: Priors) -> Procedure:
    """Make the classifier from all images, and predict each image by the same procedure without its fold.

    With two folds nothing is left to choose on: the first candidate is taken, and the temperature is 1.
    """
    everything = range(len(candidates))
    of_features = {name: _positions(candidates, name) for name in dict.fromkeys(one.features for one in candidates)}
    held_out, rows = [], []
    alone: dict[str, list[OutOfFold]] = {name: [] for name in of_features}
    for repeat, of_image in enumerate(folds.of_image):
        fold = torch.from_numpy(of_image)
        logits = fold_logits(data, candidates, fold, folds.n_folds, priors)
        rows.append(_predict_repeat(data, logits, everything, fold, repeat, priors))
        for name, positions in of_features.items():
            is_all = len(of_features) == 1
            alone[name].append(rows[-1] if is_all else _predict_repeat(data, logits, positions, fold, repeat, priors))
        held_out.append(logits[:, fold, torch.arange(len(fold))])
    every = torch.ones(len(data.labels), dtype=torch.bool)
    choice, losses = choose(torch.stack(held_out), data.labels, every, priors, folds.n_folds > 2)
    classifier = _fit_all(data, candidates, choice, losses, priors)
    by_features = {name: _concatenate(found) for name, found in alone.items()}
    return Procedure(tuple(candidates), classifier, _concatenate(rows), by_features)


def _positions(candidates: Sequence[Candidate], features: str) -> list[int]:
    """Return the positions of the candidates with these features."""
    return [position for position, candidate in enumerate(candidates) if candidate.features == features]


def fold_logits(
    data: LabelledFeatures, candidates: Sequence[Candidate], fold: Tensor, n_folds: int, priors: Priors
) -> Tensor:
    """Logits of every image by fits without its fold and one more.

    Args:
        fold: int64 (n,), the fold of each image.

    Returns:
        float (n_candidates, n_folds, n, n_classes): at [:, f, i] by the fit without f and the fold of i.
    """
    pairs = torch.combinations(torch.arange(n_folds), with_replacement=True)
    if n_folds == 2:  # without both folds there is nothing to fit to
        pairs = pairs[pairs[:, 0] == pairs[:, 1]]
    kept = (fold != pairs[:, :1]) & (fold != pairs[:, 1:])
    logits = torch.full((len(candidates), n_folds, len(fold), data.n_classes), torch.nan)
    for name in {candidate.features: None for candidate in candidates}:
        wanted = _positions(candidates, name)
        l2 = torch.tensor([candidates[position].l2 for position in wanted])
        fits = torch.arange(len(pairs)).repeat(len(wanted))
        shared = share_points(data, data.matrices[name], kept, priors)
        solved = shared.fit(fits, l2.repeat_interleave(len(pairs)))
        for fit, pair in enumerate(fits.tolist()):
            f, g = pairs[pair].tolist()
            for outer, inner in {(f, g), (g, f)}:
                images = (fold == inner).nonzero()[:, 0]
                predicted = predict_images(solved, fit, images, data.matrices[name].shape[1])
                logits[wanted[fit // len(pairs)], outer, images] = predicted
    return logits


def predict_images(solved: Solutions, fit: int, images: Tensor, n_views: int) -> Tensor:
    """Logits (k, n_classes) of images, int64 (k,), over their views."""
    points = (images[:, None] * n_views + torch.arange(n_views)).flatten()
    of_views = solved.logits(fit, points).unflatten(0, (-1, n_views))
    return average_views(of_views.movedim(1, 0))


def share_points(data: LabelledFeatures, matrix: Tensor, kept: Tensor, priors: Priors) -> SharedPoints:
    """Points for fits to some images each, bool (b, n): every view is one, and together they weigh as much as an image.

    Classes count by the priors.
    """
    n_views = matrix.shape[1]
    of_views = (image_weights(data.labels, kept, "data") / n_views).repeat_interleave(n_views, dim=1)
    labels = data.labels.repeat_interleave(n_views)
    counts = kept.float() @ F.one_hot(data.labels, data.n_classes).float()
    return SharedPoints(matrix.flatten(0, 1), labels, data.n_classes, of_views, class_shifts(counts, priors))


def _fit_all(
    data: LabelledFeatures, candidates: Sequence[Candidate], choice: Choice, losses: Tensor, priors: Priors
) -> FinalClassifier:
    candidate = candidates[choice.candidate]
    every = torch.ones(1, len(data.labels), dtype=torch.bool)
    shared = share_points(data, data.matrices[candidate.features], every, priors)
    head = shared.fit(torch.zeros(1, dtype=torch.int64), torch.tensor([candidate.l2]), 1e-5).heads()
    return FinalClassifier(
        choice, candidate, head.weight[0], head.bias[0], head.centre[0], head.scale[0], losses.double().numpy()
    )


def _predict_repeat(
    data: LabelledFeatures, logits: Tensor, among: Sequence[int], fold: Tensor, repeat: int, priors: Priors
) -> OutOfFold:
    """Predict each image by the candidate, of those at some positions, and temperature that the other folds choose."""
    n_folds, n = logits.shape[1:3]
    logits = logits[list(among)]
    probabilities = torch.empty(n, data.n_classes, dtype=torch.float64)
    candidate, smaller = torch.empty(n, dtype=torch.int64), torch.empty(n, dtype=torch.float64)
    for f in range(n_folds):
        choice, _ = choose(logits[None, :, f], data.labels, fold != f, priors, n_folds > 2)
        held = (fold == f).nonzero()[:, 0]
        of_choice = logits[choice.candidate]
        probabilities[held] = (of_choice[f, held].double() / choice.temperature).softmax(1)
        candidate[held] = choice.candidate
        others = [g for g in range(n_folds) if g != f]
        hits = of_choice[others][:, held].argmax(2) == data.labels[held]
        smaller[held] = hits.double().mean(0) if n_folds > 2 else torch.nan
    return OutOfFold(
        image=np.arange(n),
        repeat=np.full(n, repeat),
        fold=fold.numpy(),
        label=data.labels.numpy(),
        probabilities=probabilities.numpy(),
        candidate=np.array(among)[candidate.numpy()],
        smaller=smaller.numpy(),
    )


def _concatenate(parts: Sequence[OutOfFold]) -> OutOfFold:
    names = OutOfFold.__dataclass_fields__
    return OutOfFold(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
