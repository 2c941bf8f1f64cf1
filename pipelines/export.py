"""Does one file answer as the trained classifier does?

    mlflow run . -e export -P fit_run=<id of a fit run>

Writes the classifier as one self-describing .onnx file, and compares it with torch on real images at several batch
sizes; a file that disagrees is not kept.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli import run_command_line


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Does one file answer as the trained classifier does? Export to ONNX with a parity check."""

    fit_run: str
    """Id of a fit run, or of a train run."""


def run(config: ExportConfig) -> str:
    """Export, check and log; returns the run's id, whose artifact `onnx/classifier.onnx` is the product."""
    import mlflow
    import numpy as np

    from pipelines.networks import CLASSIFIER_ARTIFACT, ONNX_ARTIFACT, SAMPLES_ARTIFACT
    from pipelines.tracking import fetch_artifact, find_run, tracked_run
    from tl_core.classifier import load_classifier
    from tl_core.errors import InputError
    from tl_core.export import check_parity, export_onnx

    with tracked_run("export", config) as run_id, tempfile.TemporaryDirectory() as folder:
        fit_run = find_run(config.fit_run, "fit", "train")
        classifier, description = load_classifier(fetch_artifact(config.fit_run, CLASSIFIER_ARTIFACT))
        with np.load(fetch_artifact(config.fit_run, SAMPLES_ARTIFACT), allow_pickle=False) as samples:
            images = samples["images"]
        metadata = {
            "class_names": json.dumps(description.class_names),
            "image_size": str(description.backbone.image_size),
            "resize_rule": "crop",
            "backbone": description.backbone.architecture,
            "fit_run": config.fit_run,
            "target_fingerprint": fit_run.data.tags.get("target_fingerprint", ""),
        }
        started = time.perf_counter()
        path = Path(folder, Path(ONNX_ARTIFACT).name)
        export_onnx(classifier, description.backbone.image_size, metadata, path)
        seconds = time.perf_counter() - started
        parity = check_parity(classifier, path, images)
        mlflow.log_metrics(
            {
                "parity/max_difference": parity.max_difference,
                "parity/equal_argmax": parity.equal_argmax,
                "parity/n_images": parity.n_images,
                "export_seconds": seconds,
                "megabytes": path.stat().st_size / 1e6,
            }
        )
        if not parity.holds:
            raise InputError(f"the exported file does not answer as torch does ({parity}); it was not kept")
        mlflow.log_artifact(str(path), str(Path(ONNX_ARTIFACT).parent))
        print(f"export {run_id}: parity {parity.max_difference:.1e} on {parity.n_images} images")
    return run_id


if __name__ == "__main__":
    run_command_line(ExportConfig, run)
