"""What do these images show?

    mlflow run . -e predict -P model=models:/eurosat@champion -P images=photos -P output=predictions.csv

Batch inference by onnxruntime: label, probability and the next classes per file. Unreadable files are listed in the
output with the reason, and make the exit code 2.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli import run_command_line
from tl_core.recipes import check_range

OUTPUT_KINDS = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What do these images show? Batch inference by onnxruntime."""

    model: str
    """An .onnx file, or a registered model such as models:/transfer-lab@champion."""
    images: str
    """Folder of images, at any depth, or one image."""
    output: str = "predictions.csv"
    """The .csv or .parquet file to write."""
    top_k: int = 5
    """Classes to list per image."""
    batch_size: int = 64
    """Images per call of the model."""
    pictures: str = ""
    """Folder for pictures: images with their probabilities, and the most confident mistakes where labels are known."""

    def __post_init__(self) -> None:
        check_range("top_k", self.top_k, 1, 10_000)
        check_range("batch_size", self.batch_size, 1, 100_000)


def run(config: PredictConfig) -> str:
    """Predict and write; returns the run's id.

    Raises:
        InputError: some images were unreadable; the output is complete all the same and lists them.
    """
    import mlflow
    from tqdm import tqdm

    from pipelines.pictures import Album
    from pipelines.tracking import tracked_run
    from registry.versions import resolve_onnx
    from serving.batch import check_output, find_images, predict_files, write_csv, write_parquet
    from serving.model import OnnxClassifier
    from tl_core.errors import InputError
    from tl_core.preprocess import is_image_name

    with tracked_run("predict", config) as run_id:
        output = Path(config.output)
        check_output(output, OUTPUT_KINDS)
        model = OnnxClassifier.load(resolve_onnx(config.model))
        images = Path(config.images)
        files = [images] if is_image_name(images.name) and images.is_file() else find_images(images)
        album = Album(Path(config.pictures), model.class_names) if config.pictures else None
        started = time.perf_counter()
        predictions = predict_files(model, files, config.top_k, config.batch_size)
        write = write_csv if output.suffix.lower() == ".csv" else write_parquet
        predictions = album.watch(predictions) if album else predictions
        progress = tqdm(predictions, total=len(files), desc="predict", unit="image", disable=None)
        unreadable = write(progress, output, config.top_k)
        seconds = time.perf_counter() - started
        metrics = {"n_images": len(files), "n_unreadable": unreadable, "images_per_second": len(files) / seconds}
        mlflow.log_metrics(metrics)
        mlflow.log_artifact(str(output))
        if album:
            print(album.close())
            mlflow.log_artifacts(config.pictures, "pictures")
        print(f"predict {run_id}: {len(files):,} images, {len(files) / seconds:,.0f} images/s, written to {output}")
    if unreadable:
        raise InputError(f"{unreadable} of {len(files)} images could not be read; {output} lists them with the reason")
    return run_id


if __name__ == "__main__":
    run_command_line(PredictConfig, run)
