"""What is the final classifier?

    mlflow run . -e fit -P target=EuroSAT.zip -P backbone_run=<id> -P search_run=<id>

Fine-tunes the backbone once, on all labelled images of the target, with the recipe that the search found. How good
it is, is what `finetune` measured: no image is left here to measure it on.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.cli import run_command_line
from tl_core.recipes import Device, FinetuneRecipe, Unreadable, check_range

N_SAMPLES = 66
"""Images kept beside the classifier, as files too, so that the export can be checked on them: two batches of 33."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What is the final classifier? Fine-tuning on all labelled images of the target."""

    target: str = "digits:target"
    """Data spec of the target."""
    backbone_run: str
    """Id of a pretrain run; a weights file, timm, timm:TAG or torchvision:ENUM.NAME; or random, or pixels."""
    backbone: str = "resnet10_small"
    """Architecture, where no pretrain run is named."""
    image_size: int = 0
    """Input side in pixels; 0 is that which the backbone was trained at, and 32 for the controls."""
    search_run: str = ""
    """Id of a search run whose recipe replaces the one below."""
    seed: int = 0
    """Seed of the batches and the views."""
    device: Device = "auto"
    """Where to compute."""
    unreadable: Unreadable = "refuse"
    """What to do about unreadable files: refuse the target, or skip them."""
    recipe: FinetuneRecipe = field(default_factory=FinetuneRecipe)

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**62)


def run(config: FitConfig) -> str:
    """Fit and log; returns the run's id, whose artifact `classifier` is what `export` loads."""
    import mlflow
    import numpy as np

    from pipelines.networks import (
        CLASSIFIER_ARTIFACT,
        SAMPLE_FILES_ARTIFACT,
        SAMPLES_ARTIFACT,
        find_recipe,
        load_network,
    )
    from pipelines.provenance import log_origin
    from pipelines.tracking import log_dataset, tracked_run
    from tl_core.classifier import ClassifierDescription, save_classifier
    from tl_core.datasets import copy_files, load_dataset
    from tl_core.devices import pick_device
    from tl_core.finetune import Finetuner

    with tracked_run("fit", config) as run_id:
        recipe = find_recipe(config.search_run, config.recipe)
        network, spec = load_network(config.backbone_run, config.backbone, config.image_size, config.seed)
        log_origin(config.backbone_run, spec, config.seed, recipe)
        dataset = load_dataset(config.target, spec.image_size, unreadable=config.unreadable)
        log_dataset(dataset, "target")
        rows = np.arange(len(dataset.labels))
        finetuner = Finetuner(network, spec, dataset, pick_device(config.device))
        classifier = finetuner.fit_classifier(rows, recipe, config.seed)
        mlflow.log_metric("n_images", len(rows))
        with tempfile.TemporaryDirectory() as folder:
            description = ClassifierDescription(spec, dataset.class_names, recipe.head, recipe.test_views)
            save_classifier(classifier, description, Path(folder, CLASSIFIER_ARTIFACT))
            samples = np.sort(np.random.default_rng(config.seed).permutation(rows)[:N_SAMPLES])
            np.savez_compressed(Path(folder, SAMPLES_ARTIFACT), images=dataset.images[samples])
            copy_files(config.target, [dataset.file_names[i] for i in samples], Path(folder, SAMPLE_FILES_ARTIFACT))
            mlflow.log_artifacts(folder)
        print(f"fit {run_id}: {len(dataset.class_names)} classes from {len(rows):,} images")
    return run_id


if __name__ == "__main__":
    run_command_line(FitConfig, run)
