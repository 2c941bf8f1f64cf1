"""A look at a data set: what is in there, what was left out or repaired, and what cannot be read?

    mlflow run . -e prepare -P data=my_folder

Reads any data spec, decodes every image once into the cache, and reports classes, counts, the fingerprint, what was
left out or repaired, and unreadable files. The run keeps `report.html`, a page with images of every class,
near-duplicates, sizes, and every file that was left out with the reason.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import Data

if TYPE_CHECKING:
    from tl_core.data.dataset import ImageDataset


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Classes, counts, unreadable files and fingerprint of a data set."""

    data: Data = field(default_factory=Data)
    image_size: int = 64
    """Side of the square, in pixels, that images are decoded to."""


def run(config: PrepareConfig) -> str:
    """Decode, report and log; returns the run's id."""
    import mlflow
    import pandas as pd

    from pipelines.configs.fields import flat_params
    from pipelines.inputs.names import run_name
    from pipelines.reports.log import log_report
    from pipelines.results.data_sheet import log_sheet
    from pipelines.store.logging import beside_the_numbers, log_dataset
    from pipelines.store.params import log_params
    from pipelines.store.runs import tracked_run
    from tl_core.data.dataset import load_dataset, refuse_unreadable
    from tl_core.errors import DataWarning

    with tracked_run("prepare", config, run_name("prepare", config.data.data)) as run_id:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # printed below, among the rest
            dataset = load_dataset(
                config.data.data, config.image_size, unreadable="skip", class_level=config.data.class_level
            )
        seconds = time.perf_counter() - started
        counts = dataset.class_counts()
        log_params(flat_params(config))
        log_dataset(dataset, "data")
        mlflow.log_metrics(
            {
                "n_images": len(dataset.labels),
                "n_classes": len(counts),
                "n_unreadable": len(dataset.unreadable),
                "n_one_colour": len(dataset.one_colour),
                "n_decoded": dataset.decoded,
                "images_per_second": len(dataset.labels) / seconds,
            }
        )
        mlflow.log_table(pd.DataFrame({"class": list(counts), "images": list(counts.values())}), "classes.json")
        mlflow.log_dict({file.name: file.reason for file in dataset.unreadable}, "unreadable.json")
        with beside_the_numbers("sheet"):
            log_sheet(dataset)
        log_report(run_id)
        print(
            f"{dataset.name}: {len(dataset.labels):,} images in {len(counts)} classes, {dataset.decoded:,} decoded now"
        )
        print(f"fingerprint {dataset.fingerprint[:16]}, {len(dataset.labels) / seconds:,.0f} images/s")
        for line in _remarks(dataset):
            print(f"  {line}")
        for name, count in counts.items():
            print(f"  {name:<40} {count:>8,}")
        for file in dataset.unreadable:
            print(f"  unreadable: {file.name}: {file.reason}")
        if config.data.unreadable == "refuse":
            refuse_unreadable(dataset.name, dataset.unreadable, len(dataset.labels) + len(dataset.unreadable))
    return run_id


def _remarks(dataset: ImageDataset) -> Iterator[str]:
    """Yield what is to be known of a data set besides its counts."""
    from tl_core.images.files import name_some

    yield from (f"note: {notice}" for notice in dataset.notices)
    if dataset.one_colour:
        yield f"note: {len(dataset.one_colour):,} images are of one colour: {name_some(dataset.one_colour)}"
    if dataset.other_files:
        yield f"left out, not named like images: {name_some(dataset.other_files)}"


if __name__ == "__main__":
    run_command_line(PrepareConfig, run)
