"""From what a user writes for `backbone_run` to a network that can be fine-tuned."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pipelines.tracking import fetch_artifact, find_run
from tl_core.backbones import BackboneSpec, build_backbone
from tl_core.classifier import load_backbone
from tl_core.recipes import FinetuneRecipe, parse_recipe

BACKBONE_ARTIFACT = "backbone"
RECIPE_ARTIFACT = "recipe.json"
CLASSIFIER_ARTIFACT = "classifier"
SAMPLES_ARTIFACT = "samples.npz"
ONNX_ARTIFACT = "onnx/classifier.onnx"

CONTROLS = ("random", "pixels")


def load_network(backbone_run: str, backbone: str, image_size: int, seed: int) -> tuple[nn.Module, BackboneSpec]:
    """The backbone of a pretrain run, or one of the two controls: `random` weights, or the `pixels` themselves.

    Raises:
        InputError: no such run, or its files are damaged.
    """
    if backbone_run in CONTROLS:
        spec = BackboneSpec("pixels" if backbone_run == "pixels" else backbone, image_size)
        return build_backbone(spec, seed), spec
    find_run(backbone_run, "pretrain")
    return load_backbone(fetch_artifact(backbone_run, BACKBONE_ARTIFACT))


def find_recipe(search_run: str, default: FinetuneRecipe) -> FinetuneRecipe:
    """The recipe that a search found, or the default where no search is named."""
    if not search_run:
        return default
    find_run(search_run, "search")
    return parse_recipe(Path(fetch_artifact(search_run, RECIPE_ARTIFACT)).read_text())
