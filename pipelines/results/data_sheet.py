"""The sheet of a data set that `prepare` keeps: images of each class, near-duplicates, sizes, and what was left out."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from pipelines.results.thumbnails import readable_name, thumbnail
from pipelines.store.artifacts import fetch_artifact
from tl_core.data.dataset import ImageDataset
from tl_core.data.sizes import count_sizes
from tl_core.data.splits import Indices

SHEET_ARTIFACT, PICTURES_ARTIFACT = "sheet.json", "sheet.parquet"
PER_CLASS, MOST_CLASSES = 8, 50
"""Images that are kept of a class, and classes that images are kept of: those with the fewest."""
PER_GROUP, MOST_GROUPS = 4, 12
"""Images that are kept of a group of near-duplicates, and groups that images are kept of: the largest."""
MOST_NAMES = 200
"""Files that are named, of those that are left out for one reason."""
_MOST_MEASURED = 2000
MOST_SEARCHED = 10_000
"""Images above which neither near-duplicates nor sizes are looked for: that would take longer than all the rest."""
_OF_CLASS, _OF_GROUP = "class", "group"


@dataclass(frozen=True)
class DataSheet:
    """Facts on a data set.

    Attributes:
        counts: images by class.
        unreadable: the first unreadable files, with the reasons.
        notices: sentences on what was left out, repaired or contradicts itself.
        other_files: the first files that are not named like images.
        one_colour: the first images without anything on them.
        n_repeated, n_groups: images that show the same as another one, and the groups that they form.
        sizes: width and height in pixels and the number of such images, the most frequent first.
    """

    counts: dict[str, int]
    unreadable: dict[str, str]
    notices: list[str]
    other_files: list[str]
    one_colour: list[str]
    n_repeated: int
    n_groups: int
    sizes: list[tuple[int, int, int]]

    @property
    def n_measured(self) -> int:
        """Number of images whose size is known."""
        return sum(count for _, _, count in self.sizes)


def log_sheet(dataset: ImageDataset) -> None:
    """Keep the facts on a data set, and some of its images, with the active run."""
    if len(dataset.labels) > MOST_SEARCHED:
        groups: list[Indices] = []
        remarks = [f"near-duplicates and sizes are not looked for here among more than {MOST_SEARCHED:,} images"]
        sizes = Counter[tuple[int, int]]()
    else:
        groups, remarks = _near_duplicates(dataset)
        measured = [dataset.file_names[row] for row in _spread(np.arange(len(dataset.labels)), _MOST_MEASURED)]
        sizes = count_sizes(dataset.name, measured, class_level=dataset.class_level)
        mlflow.log_metrics({"n_near_duplicates": sum(map(len, groups))})
    sheet = DataSheet(
        counts=dataset.class_counts(),
        unreadable={file.name: file.reason for file in dataset.unreadable[:MOST_NAMES]},
        notices=[*dataset.notices, *remarks],
        other_files=list(dataset.other_files[:MOST_NAMES]),
        one_colour=list(dataset.one_colour[:MOST_NAMES]),
        n_repeated=sum(map(len, groups)),
        n_groups=len(groups),
        sizes=[(width, height, count) for (width, height), count in sizes.most_common()],
    )
    mlflow.log_dict(asdict(sheet), SHEET_ARTIFACT)
    tables = [
        *_of_classes(dataset),
        *(_pictures(dataset, rows[:PER_GROUP], _OF_GROUP) for rows in groups[:MOST_GROUPS]),
    ]
    with tempfile.TemporaryDirectory() as folder:
        numbered = [table.assign(number=number) for number, table in enumerate(tables)]
        pd.concat(numbered).to_parquet(Path(folder, PICTURES_ARTIFACT))
        mlflow.log_artifacts(folder)


def read_sheet(run_id: str) -> DataSheet:
    """Read back the facts that a prepare run has kept.

    Raises:
        InputError: it has kept none, as runs of earlier versions have not.
    """
    return DataSheet(**json.loads(fetch_artifact(run_id, SHEET_ARTIFACT).read_text()))


def read_pictures(run_id: str) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Read back the kept images: a table by class, and a table by group; columns file, label, jpeg."""
    kept = pd.read_parquet(fetch_artifact(run_id, PICTURES_ARTIFACT))
    tables = [table for _, table in kept.groupby("number")]
    of_classes, of_groups = ([one for one in tables if one["kind"].iloc[0] == kind] for kind in (_OF_CLASS, _OF_GROUP))
    return of_classes, of_groups


def _near_duplicates(dataset: ImageDataset) -> tuple[list[Indices], list[str]]:
    """Return the images of each group of near-duplicates, the largest first, and what is to be said of the grouping."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        numbers = dataset.near_duplicates
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    several = [rows for rows in groups if len(rows) > 1]
    return sorted(several, key=len, reverse=True), [str(one.message) for one in caught]


def _spread(rows: Indices, most: int) -> Indices:
    """Return at most so many of the rows, from all over them."""
    found: Indices = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64)]
    return found


def _of_classes(dataset: ImageDataset) -> list[pd.DataFrame]:
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    fewest = np.sort(np.argsort(counts, kind="stable")[:MOST_CLASSES])
    members = [np.flatnonzero(dataset.labels == label) for label in fewest]
    return [_pictures(dataset, _spread(rows, PER_CLASS), _OF_CLASS) for rows in members]


def _pictures(dataset: ImageDataset, rows: Indices, kind: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kind": kind,
            "file": [readable_name(dataset, row) for row in rows],
            "label": [dataset.class_names[label] for label in dataset.labels[rows]],
            "jpeg": [thumbnail(dataset.images[row]) for row in rows],
        }
    )
