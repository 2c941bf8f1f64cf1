"""The final classifier: fine-tuning on all labelled images of the target.

    mlflow run . -e fit -P target=EuroSAT.zip -P weights=<pretrain run> -P search_run=<search run>

Fine-tunes the backbone once, on all labelled images of the target, with the recipe that the search found. How good
it is, is what `finetune` measured: no image is left here to measure it on.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import TargetData
from pipelines.configs.fields import flat_params, with_values
from pipelines.configs.network import FewShotNetwork
from pipelines.configs.where import Where
from tl_core.recipes.checks import check_choice, check_seed
from tl_core.recipes.choices import Priors
from tl_core.recipes.finetune import FinetuneRecipe, believable_recipe


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Fine-tuning on all labelled images of the target: the final classifier."""

    data: TargetData = field(default_factory=TargetData)
    network: FewShotNetwork
    priors: Priors = "balanced"
    """What counts: every class the same (balanced), or each as often as it is among the images (data)."""
    seed: int = 0
    """Seed of the batches, the views, and the weights of an untrained network."""
    search_run: str = ""
    """Search run whose recipe replaces the one below, all but its temperature."""
    recipe: FinetuneRecipe = field(default_factory=believable_recipe)
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_choice("priors", self.priors, get_args(Priors))


def run(config: FitConfig) -> str:
    """Fit and log; returns the run's id, whose artifact `classifier` is what `export` loads."""
    import mlflow
    import numpy as np
    import torch

    from pipelines.inputs.networks import find_recipe
    from pipelines.inputs.own_images import say_uneven
    from pipelines.inputs.provenance import log_origin
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.inputs.target import open_target
    from pipelines.results.classifiers import save_for_export
    from pipelines.store.params import log_params
    from pipelines.store.runs import rename_run, tracked_run
    from tl_core.fewshot.unlike import know_fitted_classes
    from tl_core.heads.classifier import ClassifierDescription

    name = _run_name(config)
    with tracked_run("fit", config, name) as run_id:
        config = with_run_ids(config, weights="pretrain", search_run="search")
        rename_run(name, _run_name(config))
        # A search compares accuracies, which no temperature changes: this one is asked for here.
        recipe = replace(find_recipe(config.search_run, config.recipe), temperature=config.recipe.temperature)
        opened = open_target(config)
        dataset, finetuner = opened.dataset, opened.finetuner
        log_origin(config.network.weights, opened.spec, config.seed, recipe)
        if uneven := say_uneven(dataset):
            print(f"note: {uneven}", file=sys.stderr)
        rows = np.arange(len(dataset.labels))
        recipe = opened.settle_max_lr([(rows, dataset.labels, config.seed)], recipe)
        log_params(flat_params(with_values(config, recipe=recipe, **opened.used())))
        classifier = finetuner.fit_classifier(rows, recipe, config.seed, config.priors)
        known = know_fitted_classes(finetuner, classifier, recipe, config.seed)
        classifier.class_means = torch.from_numpy(known.means)
        mlflow.log_metric("n_images", len(rows))
        with tempfile.TemporaryDirectory() as folder:
            description = ClassifierDescription(
                opened.spec,
                dataset.class_names,
                recipe.head,
                recipe.test_views,
                float(classifier.temperature),
                has_class_means=True,
                unlike_below=known.unlike_below,
            )
            save_for_export(classifier, description, dataset, rows, config.seed, Path(folder))
            mlflow.log_artifacts(folder)
        print(f"fit {run_id}: {len(dataset.class_names)} classes from {len(rows):,} images")
    return run_id


def _run_name(config: FitConfig) -> str:
    from pipelines.inputs.names import run_name

    network = config.network
    return run_name(
        "fit", config.data.target, network.weights, network.backbone, "searched" if config.search_run else ""
    )


if __name__ == "__main__":
    run_command_line(FitConfig, run)
