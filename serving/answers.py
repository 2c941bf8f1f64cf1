"""Predictions beside the files that they are of, as a table and its images are read again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.sources import ImageFile, ImageSource
from serving.tables import Prediction, name_in_table, read_table
from tl_core.errors import InputError


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
            above = Path(file.name).parent.name
            yield Answer(prediction, file, above if above in class_names else "")
