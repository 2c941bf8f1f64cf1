"""What is the final classifier?

    mlflow run . -e fit -P target=EuroSAT.zip -P backbone_run=<id> -P search_run=<id>

Fine-tunes the backbone once, on all labelled images of the target, with the recipe that the search found. How good
it is, is what `finetune` measured: no image is left here to measure it on.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipelines.command_line.command import run_command_line
from pipelines.inputs.target import TargetConfig, open_target


@dataclass(frozen=True, kw_only=True)
class FitConfig(TargetConfig):
    """What is the final classifier? Fine-tuning on all labelled images of the target."""

    search_run: str = ""
    """Id of a search run whose recipe replaces the one below."""


def run(config: FitConfig) -> str:
    """Fit and log; returns the run's id, whose artifact `classifier` is what `export` loads."""
    import mlflow
    import numpy as np

    from pipelines.inputs.networks import (
        CLASSIFIER_ARTIFACT,
        N_SAMPLES,
        SAMPLE_FILES_ARTIFACT,
        SAMPLES_ARTIFACT,
        find_recipe,
    )
    from pipelines.inputs.provenance import log_origin
    from pipelines.store.runs import tracked_run
    from tl_core.data.dataset import copy_files
    from tl_core.heads.classifier import ClassifierDescription
    from tl_core.heads.storage import save_classifier

    with tracked_run("fit", config) as run_id:
        recipe = find_recipe(config.search_run, config.recipe)
        opened = open_target(config)
        dataset, finetuner = opened.dataset, opened.finetuner
        log_origin(config.backbone_run, opened.spec, config.seed, recipe)
        rows = np.arange(len(dataset.labels))
        recipe = opened.settle_max_lr([(rows, dataset.labels, config.seed)], recipe)
        classifier = finetuner.fit_classifier(rows, recipe, config.seed)
        mlflow.log_metric("n_images", len(rows))
        with tempfile.TemporaryDirectory() as folder:
            description = ClassifierDescription(
                opened.spec, dataset.class_names, recipe.head, recipe.test_views, float(classifier.temperature)
            )
            save_classifier(classifier, description, Path(folder, CLASSIFIER_ARTIFACT))
            samples = np.sort(np.random.default_rng(config.seed).permutation(rows)[:N_SAMPLES])
            np.savez_compressed(Path(folder, SAMPLES_ARTIFACT), images=dataset.images[samples])
            copy_files(config.target, [dataset.file_names[i] for i in samples], Path(folder, SAMPLE_FILES_ARTIFACT))
            mlflow.log_artifacts(folder)
        print(f"fit {run_id}: {len(dataset.class_names)} classes from {len(rows):,} images")
    return run_id


if __name__ == "__main__":
    run_command_line(FitConfig, run)
