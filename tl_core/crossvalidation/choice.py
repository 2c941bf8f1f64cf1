"""Choice of a candidate and its temperature by logits of images that were held out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tl_core.heads.shares import image_weights
from tl_core.heads.temperature import log_likelihoods, most_probable
from tl_core.recipes.choices import Priors

PRIOR_SPREAD = 0.25
"""Standard deviation of the prior on a temperature's logarithm: a penalty that was chosen leaves it little to do."""
EVIDENCE = 0.5
"""Logarithm of the ratio of likelihoods that a temperature needs against none: less is the luck of a few images."""


@dataclass(frozen=True)
class Choice:
    """A candidate, by its position, and the temperature of its logits."""

    candidate: int
    temperature: float


def choose(logits: Tensor, labels: Tensor, images: Tensor, priors: Priors, enough: bool) -> tuple[Choice, Tensor]:
    """Take the candidate of least log loss, averaged over the repeats, and fit its temperature.

    Args:
        logits: float (n_repeats, n_candidates, n, n_classes), by fits without the image.
        labels: int64 (n,).
        images: bool (n,), those to choose by; of the others the logits are not read.
        priors: `balanced` gives every class the same part in the loss.
        enough: False takes the first candidate as it is, for want of inner folds.

    Returns:
        The choice, and the log loss of each candidate, float (n_candidates,).
    """
    weights = image_weights(labels, images[None], priors)[0, images]
    known, right = logits[:, :, images].double(), labels[images]
    losses = log_loss(known, right, weights).mean(0)
    if not enough:
        return Choice(0, 1.0), losses
    best = int(losses.argmin())
    return Choice(best, fit_temperature(known[:, best], right, weights)), losses


def log_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy (...,) of logits (..., n, n_classes), with weights (n,) that sum to 1."""
    index = labels[:, None].expand(*logits.shape[:-1], 1)
    return -(logits.log_softmax(-1).gather(-1, index)[..., 0] * weights).sum(-1)


def fit_temperature(logits: Tensor, labels: Tensor, weights: Tensor, spread: float = PRIOR_SPREAD) -> float:
    """Temperature (Guo et al., 2017) of greatest posterior probability, where the images clearly ask for one; else 1.

    Args:
        logits: float (n_repeats, n, n_classes); repeats of an image are averaged, not counted as images.
        labels: int64 (n,).
        weights: float (n,), sum 1; with unequal ones the images count as 1 / sum(weights^2) of them.
    """
    of_repeats = log_likelihoods(logits, labels.expand(len(logits), -1), weights[None])
    return float(most_probable(of_repeats.mean(0, keepdim=True), spread, EVIDENCE))
