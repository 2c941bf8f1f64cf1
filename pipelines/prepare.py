"""A look at a data set: what is in there, and what cannot be read?

    mlflow run . -e prepare -P data=my_folder

Reads any data spec, decodes every image once into the cache, and reports classes, counts, unreadable files and the
fingerprint.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import Data

_MOST_NAMED = 5


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

    from pipelines.store.logging import log_dataset
    from pipelines.store.runs import tracked_run
    from tl_core.data.dataset import load_dataset, refuse_unreadable
    from tl_core.data.layouts.built_in import BUILT_IN
    from tl_core.images.files import other_files

    with tracked_run("prepare", config) as run_id:
        started = time.perf_counter()
        dataset = load_dataset(config.data.data, config.image_size, unreadable="skip")
        seconds = time.perf_counter() - started
        counts = dataset.class_counts()
        log_dataset(dataset, "data")
        mlflow.log_metrics(
            {
                "n_images": len(dataset.labels),
                "n_classes": len(counts),
                "n_unreadable": len(dataset.unreadable),
                "n_decoded": dataset.decoded,
                "images_per_second": len(dataset.labels) / seconds,
            }
        )
        mlflow.log_table(pd.DataFrame({"class": list(counts), "images": list(counts.values())}), "classes.json")
        mlflow.log_dict({file.name: file.reason for file in dataset.unreadable}, "unreadable.json")
        print(
            f"{dataset.name}: {len(dataset.labels):,} images in {len(counts)} classes, {dataset.decoded:,} decoded now"
        )
        print(f"fingerprint {dataset.fingerprint[:16]}, {len(dataset.labels) / seconds:,.0f} images/s")
        for name, count in counts.items():
            print(f"  {name:<40} {count:>8,}")
        for file in dataset.unreadable:
            print(f"  unreadable: {file.name}: {file.reason}")
        folder = Path(config.data.data).expanduser()
        others = list(other_files(folder)) if folder.is_dir() and config.data.data not in BUILT_IN else []
        if others:
            more = f" and {len(others) - _MOST_NAMED:,} more" if len(others) > _MOST_NAMED else ""
            print(f"  left out, not named like images: {', '.join(others[:_MOST_NAMED])}{more}")
        if config.data.unreadable == "refuse":
            refuse_unreadable(dataset.name, dataset.unreadable, len(dataset.labels) + len(dataset.unreadable))
    return run_id


if __name__ == "__main__":
    run_command_line(PrepareConfig, run)
