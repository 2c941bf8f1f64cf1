"""Predictions beside the files that they are of, as a table and its images are read again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.model import OnnxClassifier
from serving.sources import ImageFile, ImageSource
from serving.tables import Prediction, read_table
from tl_core.errors import InputError
from tl_core.images.files import as_utf8

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


@dataclass(frozen=True)
class KnownImages:
    """Images in folders that are named like a class.

    Attributes:
        accuracy: on those that the classifier was not made from; None without one.
        n_learned: number of the others.
    """

    accuracy: Accuracy | None
    n_learned: int

    def sentences(self) -> list[str]:
        """In words, with what it was computed of."""
        found, said = self.accuracy, []
        if found is not None:
            interval = f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"
            new = "new images" if self.n_learned else "images"
            said.append(f"accuracy {interval} on the {found.n:,} {new} in folders that are named like a class")
        if self.n_learned:
            said.append(
                f"{self.n_learned:,} images that the classifier was made from say nothing of its accuracy: left out"
            )
        return said


def score_known(source: ImageSource, table: Path, model: OnnxClassifier) -> KnownImages:
    """Score the most probable class of every image that lies in a folder named like a class.

    Raises:
        InputError: the source has changed since the table was written.
    """
    names = frozenset(model.class_names)
    n = n_right = n_learned = 0
    if any(_class_of(file, names) for file in source.files()):
        for one in read_answers(source, table, names):
            is_learned = bool(one.label) and _was_learned(model, one.file)
            n_learned += is_learned
            if one.label and not is_learned:
                n += 1
                n_right += one.prediction.top[0][0] == one.label
    return KnownImages(Accuracy.of(n_right, n) if n else None, n_learned)


def _was_learned(model: OnnxClassifier, file: ImageFile) -> bool:
    try:
        return bool(model.learned_from) and model.has_learned_from(file.read())
    except OSError:  # it was readable a moment ago
        return False


def read_answers(source: ImageSource, table: Path, class_names: frozenset[str]) -> Iterator[Answer]:
    """Yield the images that could be read, in order; the files are the source's, as an archive's have no path.

    Args:
        table: what `write_predictions` wrote for this source.
        class_names: an image's class is known where the folder that it lies in is called like one of them.

    Raises:
        InputError: the source has changed since.
    """
    for file, prediction in zip(source.files(), read_table(table), strict=False):
        if as_utf8(file.name) != prediction.file:
            raise InputError(f"the images have changed since {table} was written; give the same command again")
        if not prediction.error:
            yield Answer(prediction, file, _class_of(file, class_names))


def _class_of(file: ImageFile, class_names: frozenset[str]) -> str:
    above = Path(file.name).parent.name
    return above if above in class_names else ""
