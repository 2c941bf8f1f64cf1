"""A finished classifier on new labelled images: is it still as good as it was said to be?

    mlflow run . -e score -P model=models:/my_model@champion -P data=new_folder

Scores a registered version, or a file, on images that had no part in its making: accuracy with its interval, the
classes that are confused, and how many images look like none of the classes. The numbers also stand at the version.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import Data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from serving.model import OnnxClassifier
    from tl_core.data.dataset import ImageDataset

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """A finished classifier on new labelled images."""

    model: str
    """An .onnx file, or a registered model such as models:/my_model@champion."""
    data: Data = field(default_factory=Data)


def run(config: ScoreConfig) -> str:
    """Score, log and report; returns the run's id."""
    import mlflow
    import numpy as np

    from pipelines.inputs.names import short_data, short_model
    from pipelines.reports.log import log_report
    from pipelines.results.nearest import features_in_file
    from pipelines.results.new_images import keep_new, log_new_images
    from pipelines.store.logging import dataset_of, interval_metrics, log_dataset, log_model_metrics
    from pipelines.store.runs import tracked_run
    from registry.versions import find_version, logged_model_of, resolve_onnx
    from serving.model import OnnxClassifier
    from tl_core.data.dataset import load_dataset

    with tracked_run(
        "score", config, f"score {short_data(config.data.data)} with {short_model(config.model)}"
    ) as run_id:
        version = find_version(config.model)
        if version is not None:  # what the alias meant at this time
            mlflow.set_tag("model_version", f"models:/{version.name}/{version.version}")
        path = resolve_onnx(config.model)
        model = OnnxClassifier.load(path)
        dataset = load_dataset(
            config.data.data,
            model.image_size,
            model.resize_rule,
            config.data.unreadable,
            class_level=config.data.class_level,
        )
        log_dataset(dataset, "target")
        known, dataset = _known_images(model, dataset)
        rows = keep_new(model, dataset, known)
        if len(rows) < len(known):
            n_learned = len(known) - len(rows)
            print(f"warning: {n_learned:,} images are left out, as the classifier was made from them", file=sys.stderr)
        probabilities, similarities = _predict(model, dataset, rows)
        unlike = None if similarities is None else np.array(model.look_unlike(similarities, len(rows)), dtype=object)
        fit_run = model.metadata.get("fit_run", "")
        found = log_new_images(dataset, rows, probabilities, unlike, partial(features_in_file, path), fit_run)
        if version is not None and (model_id := logged_model_of(version)):
            scored_on = dataset_of(mlflow.get_run(run_id))
            log_model_metrics(model_id, interval_metrics("accuracy", found.accuracy), scored_on)
        log_report(run_id)
        print(f"score {run_id}: accuracy {found.accuracy.percent()} on {config.data.data}")
    return run_id


def _known_images(model: OnnxClassifier, dataset: ImageDataset) -> tuple[NDArray[np.int64], ImageDataset]:
    """Return the rows of classes that the model knows, and the data set with the model's classes.

    Raises:
        InputError: it knows none of the classes.
    """
    import numpy as np

    from tl_core.errors import InputError

    position = {name: number for number, name in enumerate(model.class_names)}
    unknown = [name for name in dataset.class_names if name not in position]
    if len(unknown) == len(dataset.class_names):
        raise InputError(
            f"expected classes of the model ({', '.join(model.class_names)}), got {', '.join(dataset.class_names)}"
        )
    numbers = np.array([position.get(name, -1) for name in dataset.class_names])
    labels = numbers[dataset.labels]
    rows = np.flatnonzero(labels >= 0)
    if unknown:
        print(
            f"warning: the model does not know {', '.join(unknown)}; {len(labels) - len(rows):,} images were left out",
            file=sys.stderr,
        )
    # Labels of the others are not read.
    return rows, replace(dataset, class_names=model.class_names, labels=np.maximum(labels, 0).astype(np.int64))


def _predict(
    model: OnnxClassifier, dataset: ImageDataset, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    import numpy as np

    batches = [np.array(dataset.images[rows[start : start + _BATCH]]) for start in range(0, len(rows), _BATCH)]
    found = [model.predict_with_similarity(batch) for batch in batches]
    similarities = [similarity for _, similarity in found if similarity is not None]
    return np.concatenate([each for each, _ in found]), np.concatenate(similarities) if similarities else None


if __name__ == "__main__":
    run_command_line(ScoreConfig, run)
