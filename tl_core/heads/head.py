"""Interface of all heads, and the centring and scaling of features that they share."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from tl_core.heads.shares import class_shifts
from tl_core.recipes.choices import Priors

PENALTY_IMAGES = 25
"""Number of labelled images, 5 of each of 5 classes, at which the penalty of a solved head is `l2` itself."""


class Head(nn.Module):
    """Logits from features that are first centred and scaled.

    A new head is a subclass in a file of its own and a line in `tl_core.recipes.heads`. Its hooks are `__init__`
    (parameters), `forward` (features to logits) and `start` (parameters from the support). A head whose best parameters
    can be computed without steps subclasses `SolvedHead` and has a single hook, `solve`.

    Centring is Wang et al. (2019), here by the support's mean, which is all that an inductive method may know of the
    target; without it the features of a backbone all point the same way. Both buffers travel into the exported graph.
    """

    is_solved: ClassVar[bool] = False
    """True if no steps are needed on a frozen backbone."""
    learns_shares: ClassVar[bool] = False
    """True if a class with more images is more probable from the start, whatever an image shows."""

    def __init__(self, n_inputs: int, n_classes: int, dropout: float = 0.0) -> None:  # noqa: ARG002 - for subclasses
        super().__init__()
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(n_inputs))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def start(
        self,
        features: Tensor,
        labels: Tensor,  # noqa: ARG002 - for subclasses
        l2: float,  # noqa: ARG002
        label_smoothing: float = 0.0,  # noqa: ARG002
    ) -> None:
        """Initialise from the support: centre and scale here, parameters in subclasses.

        Args:
            features: float (n, n_inputs), of every view of every support image.
            labels: int64 (n,), values 0 .. n_classes - 1.
            l2, label_smoothing: settings of the recipe, for heads that are solved.
        """
        centre, scale = centre_and_scale(features[None])
        self.centre.copy_(centre[0])
        self.scale.copy_(scale[0])

    @classmethod
    def shifts(cls, labels: Tensor, n_classes: int, priors: Priors) -> Tensor:
        """What is taken off the logits (n_classes,) of a head that was fitted to labels (n,); see `class_shifts`."""
        counts = labels.bincount(minlength=n_classes)
        return class_shifts(counts, priors if cls.learns_shares else "data").to(labels.device)

    def take_off_shares(self, labels: Tensor, priors: Priors) -> None:
        """Have classes count by the priors, after a fit to labels (n,); nothing to do unless `learns_shares`."""

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Centre on the mean of these features (n, n_inputs) and scale to unit variance, to train on many images."""
        centre = features.mean(0)
        self.centre.copy_(centre)
        self.scale.copy_((features - centre).square().mean().sqrt().clamp(min=1e-6))


class SolvedHead(Head):
    """A linear map on centred and scaled features; a subclass says in `solve` which one.

    On a frozen backbone the solution is the classifier. Elsewhere fine-tuning starts from it and moves it (linear
    probing, then fine-tuning: Kumar et al., 2022).
    """

    is_solved: ClassVar[bool] = True

    def __init__(self, n_inputs: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__(n_inputs, n_classes, dropout)
        self.weight = nn.Parameter(torch.zeros(n_classes, n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    @staticmethod
    @abstractmethod
    def solve(
        points: Tensor, labels: Tensor, n_classes: int, l2: float, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Solve many episodes of the same shape at once; no episode's solution depends on the others.

        Args:
            points: float (b, n, d), centred, of root mean square length 1.
            labels: int64 (b, n), values 0 .. n_classes - 1.

        Returns:
            Weight (b, n_classes, d) and bias (b, n_classes).
        """

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_inputs) to logits (n, n_classes)."""
        logits: Tensor = (features - self.centre) / self.scale @ self.weight.T + self.bias
        return logits

    @torch.no_grad()
    def start(self, features: Tensor, labels: Tensor, l2: float, label_smoothing: float = 0.0) -> None:
        """Set the parameters to the solution for the support images' features."""
        super().start(features, labels, l2, label_smoothing)
        points = (features - self.centre) / self.scale
        weight, bias = self.solve(points[None], labels[None], len(self.bias), l2, label_smoothing)
        self.weight.copy_(weight[0])
        self.bias.copy_(bias[0])

    @classmethod
    def solve_episodes(
        cls, support: Tensor, labels: Tensor, queries: Tensor, l2: float, label_smoothing: float = 0.0
    ) -> Tensor:
        """Solve the heads of many episodes at once and apply them.

        Args:
            support: float (b, n, d); labels: int64 (b, n); queries: float (b, m, d).

        Returns:
            Logits (b, m, n_classes), those of a head that was started with the same arguments.
        """
        n_classes = int(labels.max()) + 1
        centre, scale = centre_and_scale(support)
        points = (support - centre[:, None]) / scale[:, None, None]
        weight, bias = cls.solve(points, labels, n_classes, l2, label_smoothing)
        return ((queries - centre[:, None]) / scale[:, None, None]) @ weight.mT + bias[:, None]


def penalty_of(l2: float, n_images: int) -> float:
    """Penalty in a mean over n images: the more there are, the less it counts, as a prior on the weights does."""
    return l2 * PENALTY_IMAGES / n_images


def centre_and_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (b, d) of the features (b, n, d), and the root mean square length (b,) of the centred features."""
    centre = features.mean(1)
    length = (features - centre[:, None]).square().sum(2).mean(1).sqrt()
    return centre, length.clamp(min=1e-12)
