"""A head that nobody has named in the library: a class in a file of its own."""

from __future__ import annotations

from torch import Tensor

from tl_core.heads.head import SolvedHead
from tl_core.heads.prototypes import class_means, nearest_mean


class DoubtfulHead(SolvedHead):
    """The nearest class mean, with logits of half the size."""

    @staticmethod
    def solve(
        points: Tensor, labels: Tensor, n_classes: int, l2: float, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Halve the linear map that finds the nearest mean."""
        weight, bias = nearest_mean(class_means(points, labels, n_classes))
        return weight / 2, bias / 2
