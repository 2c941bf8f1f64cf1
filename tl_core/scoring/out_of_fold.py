"""Predictions of images that had no part in the making of what predicts them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions, one row per image and repeat of the cross-validation, ordered by repeat, then image.

    Attributes:
        image: int64 (m,), position among the n images.
        repeat, fold: int64 (m,).
        label: int64 (m,), the class that the image is labelled with.
        probabilities: float64 (m, n_classes).
        candidate: int64 (m,), position of the candidate that was chosen without the row's fold.
        smaller: float64 (m,), share of classifiers fitted without a further fold that get the image right; NaN
            where there is none. The difference to all rows' accuracy is what the missing fold costs.
    """

    image: Ints
    repeat: Ints
    fold: Ints
    label: Ints
    probabilities: Floats
    candidate: Ints
    smaller: Floats

    @property
    def n_images(self) -> int:
        """Number of images."""
        return int(self.image.max()) + 1

    @property
    def n_repeats(self) -> int:
        """Number of rows of each image."""
        return int(self.repeat.max()) + 1

    @property
    def n_folds(self) -> int:
        """Number of folds of each repeat."""
        return int(self.fold.max()) + 1

    @property
    def labels(self) -> Ints:
        """Label of each image, int64 (n_images,)."""
        return self.label[: self.n_images]

    def right(self) -> Floats:
        """Share of the repeats in which each image is predicted right: float64 (n_images,)."""
        hits = self.probabilities.argmax(1) == self.label
        share: Floats = hits.reshape(self.n_repeats, -1).mean(0)
        return share

    def mean_probabilities(self) -> Floats:
        """Probabilities averaged over the repeats: float64 (n_images, n_classes)."""
        averaged: Floats = self.probabilities.reshape(self.n_repeats, self.n_images, -1).mean(0)
        return averaged
