"""A temperature (Guo et al., 2017) for a classifier of few images: by cross-validation inside the support.

Dividing the logits by it changes how sure an answer is, and never which.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tl_core.heads.classifier import average_views
from tl_core.heads.head import SolvedHead, penalty_of
from tl_core.heads.shares import image_weights
from tl_core.recipes.choices import Priors

TEMPERATURES = tuple(2 ** (i / 8) for i in range(-40, 41))
"""What is tried, from 1/32 to 32."""
_NO_CHANGE = TEMPERATURES.index(1.0)
PRIOR_SPREAD = 0.35
"""Standard deviation of the prior on a temperature's logarithm; its mean is 0, no change."""
MAX_FOLDS = 5


def solved_temperatures(
    head: type[SolvedHead],
    support: Tensor,
    labels: Tensor,
    l2: float,
    label_smoothing: float = 0.0,
    priors: Priors = "balanced",
) -> Tensor:
    """Temperatures of the solved heads of many episodes.

    Each image is scored, over the mean of its views, by a head that was fitted without it. With one image per class
    there is nothing to leave out, and the temperature is 1.

    Args:
        support: float (b, n, n_views, d), every view of every image.
        labels: int64 (b, n), in the same order in every episode.
        l2: as in the recipe; `penalty_of` makes it the penalty of a fit.
        priors: what classes count; of episodes with as many images of each it is all the same.

    Returns:
        Temperatures (b,).
    """
    folds = split_folds(labels[0])
    if not folds:
        return support.new_ones(len(support))
    scored = support.new_empty(*labels.shape, int(labels.max()) + 1)
    for kept, held in folds:
        logits = head.solve_episodes(
            support[:, kept].flatten(1, 2),
            labels[:, kept].repeat_interleave(support.shape[2], dim=1),
            support[:, held].flatten(1, 2),
            penalty_of(l2, len(kept)),
            label_smoothing,
        ).unflatten(1, (len(held), -1))  # (b, held, n_views, n_classes)
        scored[:, held] = average_views(logits.movedim(2, 0)) - head.shifts(labels[0, kept], scored.shape[2], priors)
    every = torch.ones_like(labels[:1], dtype=torch.bool)
    return best_temperatures(scored, labels, image_weights(labels[0], every, priors)[0])


def best_temperatures(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Of each episode the `most_probable` temperature: (b, n, n_classes) and int64 (b, n) to (b,).

    Args:
        weights: float (n,) of the images, sum 1; all alike by default.
    """
    n = labels.shape[1]
    given = logits.new_full((n,), 1 / n) if weights is None else weights.to(logits)
    return most_probable(log_likelihoods(logits, labels, given[None]))


def most_probable(likelihoods: Tensor, spread: float = PRIOR_SPREAD, evidence: float = 0.0) -> Tensor:
    """Of each row of log likelihoods the most probable temperature; 1 where the images do not clearly ask for another.

    Its logarithm is normal around 0 a priori, so that images that are all named rightly do not ask for the lowest.

    Args:
        likelihoods: float (b, n_temperatures), as of `log_likelihoods`.
        spread: standard deviation of the temperature's logarithm a priori.
        evidence: logarithm of the ratio of likelihoods that a temperature needs against none.

    Returns:
        Temperatures (b,).
    """
    logarithms = likelihoods.new_tensor(TEMPERATURES).log()
    best = (likelihoods - 0.5 * (logarithms / spread).square()).argmax(1, keepdim=True)
    gain = likelihoods.gather(1, best)[:, 0] - likelihoods[:, _NO_CHANGE]
    return torch.where(gain > evidence, likelihoods.new_tensor(TEMPERATURES)[best[:, 0]], 1.0)


def log_likelihoods(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Logarithm of the likelihood of each of `TEMPERATURES`: (b, n_temperatures).

    Args:
        logits: float (b, n, n_classes); labels: int64 (b, n).
        weights: float (b, n) or (1, n), sum 1; with unequal ones the images count as 1 / sum(weights^2) of them.
    """
    right = labels[..., None]
    means = [  # one after the other: of all at once the logarithms of large tables would not fit in memory
        ((logits / temperature).log_softmax(2).gather(2, right)[..., 0] * weights).sum(1)
        for temperature in TEMPERATURES
    ]
    n_images = 1 / weights.square().sum(1, keepdim=True)
    return n_images * torch.stack(means, dim=1)


def split_folds(labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Up to `MAX_FOLDS` ways to part the positions of labels (n,) into some to fit and some to score.

    Every class is shared out evenly; a class with a single image leaves nothing to fit, and there is no way.
    """
    rank = torch.zeros_like(labels)
    for label in labels.unique():
        members = labels == label
        rank[members] = torch.arange(int(members.sum()), device=labels.device)
    n_folds = min(MAX_FOLDS, int(labels.bincount().min()))
    fold = rank % n_folds
    return [((fold != i).nonzero()[:, 0], (fold == i).nonzero()[:, 0]) for i in range(n_folds)] if n_folds > 1 else []
