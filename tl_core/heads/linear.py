"""Linear head, solved by multinomial logistic regression."""

from __future__ import annotations

from torch import Tensor

from tl_core.heads.head import SolvedHead
from tl_core.heads.logistic import fit_logistic


class LinearHead(SolvedHead):
    """Multinomial logistic regression with an L2 penalty: a convex problem with one solution."""

    @staticmethod
    def solve(
        points: Tensor, labels: Tensor, n_classes: int, l2: float, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Solve by `fit_logistic`."""
        return fit_logistic(points, labels, n_classes, l2, label_smoothing)
