"""Predictions beside the files that they are of, as a table and its images are read again."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.sources import ImageFile, ImageSource
from serving.tables import Prediction, name_in_table, read_table
from tl_core.errors import InputError

_Z = 1.959964
"""Quantile 0.975 of the normal distribution."""


@dataclass(frozen=True)
class Answer:
    """A prediction with its file, and the true class where it is known, else empty."""

    prediction: Prediction
    file: ImageFile
    label: str

    @property
    def probability(self) -> float:
        """Probability of the best class."""
        return self.prediction.top[0][1]

    @property
    def is_mistake(self) -> bool:
        """Return whether a label was given, and the class is known to be another one."""
        return bool(self.label) and self.prediction.label not in ("", self.label)


@dataclass(frozen=True)
class Accuracy:
    """Share of right predictions of n images whose class is known, with its 95 % interval (Wilson, 1927)."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, n_right: int, n: int) -> Accuracy:
        """Compute the interval; n is 1 or more."""
        share, spread = n_right / n, _Z**2 / n
        centre = (share + spread / 2) / (1 + spread)
        half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
        return cls(share, max(0.0, centre - half), min(1.0, centre + half), n)

    def sentence(self) -> str:
        """In words, with what it was computed of."""
        interval = f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"accuracy {interval} on the {self.n:,} images in folders that are named like a class"


def score_known(source: ImageSource, table: Path, class_names: Collection[str]) -> Accuracy | None:
    """Score the most probable class of every image that lies in a folder named like a class; None without one.

    Raises:
        InputError: the source has changed since the table was written.
    """
    names = frozenset(class_names)
    if not any(_class_of(file, names) for file in source.files()):
        return None
    known = [one for one in read_answers(source, table, names) if one.label]
    return Accuracy.of(sum(one.prediction.top[0][0] == one.label for one in known), len(known)) if known else None


def read_answers(source: ImageSource, table: Path, class_names: frozenset[str]) -> Iterator[Answer]:
    """Yield the images that could be read, in order; the files are the source's, as an archive's have no path.

    Args:
        table: what `write_predictions` wrote for this source.
        class_names: an image's class is known where the folder that it lies in is called like one of them.

    Raises:
        InputError: the source has changed since.
    """
    for file, prediction in zip(source.files(), read_table(table), strict=False):
        if name_in_table(file.name) != prediction.file:
            raise InputError(f"the images have changed since {table} was written; give the same command again")
        if not prediction.error:
            yield Answer(prediction, file, _class_of(file, class_names))


def _class_of(file: ImageFile, class_names: frozenset[str]) -> str:
    above = Path(file.name).parent.name
    return above if above in class_names else ""
