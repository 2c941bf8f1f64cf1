"""Batch inference: what do these images show?

    mlflow run . -e predict -P model=models:/eurosat@champion -P images=photos -P output=predictions.csv

Batch inference by onnxruntime: label, probability, whether the image looks like none of the classes, and the next
classes per file. Unreadable files are listed in the output with the reason, and make the exit code 2. The same command,
given again after an interruption, continues there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from tl_core.recipes.checks import check_range
from tl_core.recipes.choices import LeastProbability

if TYPE_CHECKING:
    from serving.answers import KnownImages
    from serving.job import Outcome


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Batch inference by onnxruntime."""

    model: str
    """An .onnx file, or a registered model such as models:/transfer-lab@champion."""
    images: str
    """A folder (at any depth), a glob, a table with a column of paths (csv, tsv, jsonl, parquet), a zip or tar, or one
    image."""
    output: str = "predictions.csv"
    """The .csv, .jsonl or .parquet file to write."""
    path_column: str = ""
    """The column of paths, where `images` is a table; by default the one that training takes, such as image or path."""
    top_k: int = 5
    """Classes to list per image."""
    min_probability: LeastProbability = 0.0
    """No label is given where the best class is less probable; recommended is the probability from which on the share
    of right predictions that was wanted of `classify` is reached."""
    batch_size: int = 16
    """Images per call of the model."""
    pictures: str = ""
    """Folder for a page to look through predictions, confirm or correct them and save the labels as a table that `data`
    takes, and for pictures: images with their probabilities, and the most confident mistakes where known."""

    def __post_init__(self) -> None:
        check_range("top_k", self.top_k, 1, 10_000)
        if self.min_probability != "recommended":
            check_range("min_probability", self.min_probability, 0, 1)
        check_range("batch_size", self.batch_size, 1, 10_000)


def run(config: PredictConfig) -> str:
    """Predict and write; returns the run's id.

    Raises:
        InputError: some images were unreadable; the output is complete all the same and lists them.
    """
    import mlflow
    from tqdm import tqdm

    from pipelines.inputs.names import short_data, short_model
    from pipelines.store.runs import tracked_run
    from registry.versions import find_version, resolve_onnx
    from serving.answers import score_known
    from serving.batch import Options
    from serving.job import check_output, write_predictions
    from serving.model import OnnxClassifier
    from serving.pictures import SHEET, draw_album, make_folder
    from serving.sources import open_source
    from serving.trust import say_trust
    from tl_core.errors import InputError

    name = f"predict {short_data(config.images)} with {short_model(config.model)}"
    with tracked_run("predict", config, name) as run_id:
        output = Path(config.output)
        check_output(output)
        if config.pictures:
            make_folder(Path(config.pictures), config.images)
        version = find_version(config.model)
        if version is not None:  # what the alias meant at this time
            mlflow.set_tag("model_version", f"models:/{version.name}/{version.version}")
        model = OnnxClassifier.load(resolve_onnx(config.model), n_threads=1)
        given = config.min_probability
        least = model.recommended_probability if given == "recommended" else given
        options = Options(config.top_k, least, config.batch_size)
        started = time.perf_counter()
        with (
            open_source(config.images, config.path_column) as source,
            tqdm(total=source.count, desc="predict", unit=" images", disable=None) as progress,
        ):
            print("".join(f"note: {notice}\n" for notice in source.notices), end="")
            outcome = write_predictions(model, source, output, options, progress.update)
            speed = (outcome.files - outcome.resumed) / (time.perf_counter() - started)
            known = score_known(source, output, model)
            if config.pictures:
                trust, folder = say_trust(model, known.n_learned), Path(config.pictures)
                print(draw_album(source, output, model.class_names, folder, model.resize_rule, trust))
        mlflow.log_metrics({**_counts_of(outcome), **_scores_of(known), "images_per_second": speed})
        mlflow.log_artifact(str(output))
        # The page and its thousands of thumbnails stay where they were asked for.
        if config.pictures and (sheet := Path(config.pictures, SHEET)).exists():
            mlflow.log_artifact(str(sheet))
        unlike = "" if outcome.unlike is None else f"{outcome.unlike:,} look like none of the classes, "
        print("".join(f"{sentence}\n" for sentence in known.sentences()), end="")
        print(f"predict {run_id}: {outcome.files:,} images, {unlike}{speed:,.0f} images/s, written to {output}")
    if outcome.unreadable:
        raise InputError(
            f"{outcome.unreadable} of {outcome.files} images could not be read; {output} lists them with the reason"
        )
    return run_id


def _scores_of(known: KnownImages) -> dict[str, float]:
    from pipelines.store.logging import interval_metrics
    from tl_core.scoring.images import Interval

    if (accuracy := known.accuracy) is None:
        return {}
    found = Interval(accuracy.value, accuracy.low, accuracy.high, accuracy.n)
    return interval_metrics("accuracy", found) | {"n_labelled": accuracy.n}


def _counts_of(outcome: Outcome) -> dict[str, float]:
    counts = {
        "n_images": outcome.files,
        "n_resumed": outcome.resumed,
        "n_unreadable": outcome.unreadable,
        "n_abstained": outcome.abstained,
        "n_unlike": outcome.unlike,
    }
    return {name: count for name, count in counts.items() if count is not None}


if __name__ == "__main__":
    run_command_line(PredictConfig, run)
