"""From what a user writes for `weights` to a network that can be fine-tuned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from pipelines.inputs.names import BASELINES
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.find import find_run
from tl_core.heads.storage import load_backbone
from tl_core.networks.backbones import BackboneSpec, build_backbone, check_size
from tl_core.networks.weights import load_weights
from tl_core.networks.weights_spec import is_weights_spec
from tl_core.recipes.finetune import FinetuneRecipe, parse_recipe

CHOSEN_WEIGHTS = "chosen_weights"
"""Tag of a classify run: of the weights that were compared those that its classifier has."""
BACKBONE_ARTIFACT = "backbone"
RECIPE_ARTIFACT = "recipe.json"
CLASSIFIER_ARTIFACT = "classifier"
SAMPLES_ARTIFACT, SAMPLE_FILES_ARTIFACT = "samples.npz", "samples.zip"
N_SAMPLES = 66
"""Images kept beside a classifier, as files too, so that the export can be checked on them: two batches of 33."""
ONNX_ARTIFACT, INT8_ARTIFACT = "onnx/classifier.onnx", "onnx/classifier.int8.onnx"
LATENCY_METRIC, SIZE_METRIC = "latency_ms", "megabytes"
"""Of an export run: how long one image takes, and how large the file is."""

BASELINE_SIZE = 32


def load_network(weights: str, backbone: str, image_size: int, seed: int) -> tuple[nn.Module, BackboneSpec]:
    """Load a pretrain run's backbone, one with weights from elsewhere, or a baseline: `random` weights, or `pixels`.

    Raises:
        InputError: no such run or weights, or their files are damaged.
    """
    if weights in BASELINES:
        spec = BackboneSpec("pixels" if weights == "pixels" else backbone, image_size or BASELINE_SIZE)
        return build_backbone(spec, seed), spec
    if is_weights_spec(weights):
        return load_weights(weights, backbone, image_size)
    run = find_run(weights, "pretrain")
    network, spec = load_backbone(fetch_artifact(run.info.run_id, BACKBONE_ARTIFACT))
    resized = replace(spec, image_size=image_size or spec.image_size)
    check_size(network, resized)
    return network, resized


def find_recipe(search_run: str, default: FinetuneRecipe) -> FinetuneRecipe:
    """Return the recipe that a search found, or the default where no search is named."""
    if not search_run:
        return default
    run = find_run(search_run, "search")
    return parse_recipe(Path(fetch_artifact(run.info.run_id, RECIPE_ARTIFACT)).read_text())
