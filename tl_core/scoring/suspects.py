"""Images whose label is doubtful, by predictions of classifiers that had not seen them.

They are ranked by the probability of the label alone. Confident learning (Northcutt, Jiang and Chuang, 2021) and
cleanlab's scores found fewer of the labels that were flipped (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tl_core.scoring.out_of_fold import OutOfFold


@dataclass(frozen=True)
class Suspect:
    """An image that is predicted to be of another class than its label says.

    Attributes:
        image: its position.
        label, likely: the class it is labelled with, and the most probable one.
        probability: of the label; low is suspect.
    """

    image: int
    label: int
    likely: int
    probability: float


def find_suspects(out_of_fold: OutOfFold) -> tuple[Suspect, ...]:
    """Images whose most probable class is not their label over the repeats, those of the least probable label first."""
    probabilities, labels = out_of_fold.mean_probabilities(), out_of_fold.labels
    likely = probabilities.argmax(1)
    of_label = probabilities[np.arange(len(labels)), labels]
    mistaken = np.flatnonzero(likely != labels)
    ranked = mistaken[np.argsort(of_label[mistaken], kind="stable")]
    return tuple(Suspect(int(i), int(labels[i]), int(likely[i]), float(of_label[i])) for i in ranked)
