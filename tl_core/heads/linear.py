"""Linear head, solved by multinomial logistic regression."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tl_core.heads.head import SolvedHead
from tl_core.heads.logistic import fit_logistic
from tl_core.recipes.choices import Priors


class LinearHead(SolvedHead):
    """Multinomial logistic regression with an L2 penalty: a convex problem with one solution."""

    learns_shares: ClassVar[bool] = True

    @staticmethod
    def solve(
        points: Tensor, labels: Tensor, n_classes: int, l2: float, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Solve by `fit_logistic`."""
        return fit_logistic(points, labels, n_classes, l2, label_smoothing)

    @torch.no_grad()
    def take_off_shares(self, labels: Tensor, priors: Priors) -> None:
        """Lower the bias of a class by how much its number of images has raised it."""
        self.bias.sub_(self.shifts(labels, len(self.bias), priors))
