"""From what a user writes for `weights` to a network that can be fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from pipelines.inputs.artifacts import BACKBONE_ARTIFACT, BASELINE_SIZE, RECIPE_ARTIFACT
from pipelines.inputs.names import BASELINES
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.find import find_run
from tl_core.heads.storage import load_backbone, load_covariance
from tl_core.networks.backbones import BackboneSpec, build_backbone, check_size, with_features
from tl_core.networks.embedded import embedded_covariance
from tl_core.networks.weights import load_weights
from tl_core.networks.weights_spec import EMBEDDED, is_weights_spec
from tl_core.recipes.choices import Features
from tl_core.recipes.finetune import FinetuneRecipe, parse_recipe


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that gives the features of its last stage, and what is known of the others.

    Attributes:
        covariance: float (d, d), of the stages' features within the classes of the source; None where unknown.
    """

    network: nn.Module
    spec: BackboneSpec
    covariance: Tensor | None = None

    def with_features(self, features: Features) -> tuple[nn.Module, BackboneSpec]:
        """Return network and spec with this kind of output.

        Raises:
            InputError: the network does not show its stages, or nothing is known to whiten them by.
        """
        return with_features(self.network, self.spec, features, self.covariance)

    def best_features(self, wanted: Features = "whitened") -> Features:
        """Return the wanted kind of features, or the next that this network has: of the stages, of the last one."""
        if wanted == "last" or not hasattr(self.network, "forward_intermediates"):
            return "last"
        return "stages" if self.covariance is None else wanted


def load_network(
    weights: str, backbone: str, image_size: int, seed: int, features: Features = "last"
) -> tuple[nn.Module, BackboneSpec]:
    """Load the network that `load_plain` finds, with this kind of features.

    Raises:
        InputError: no such run or weights, their files are damaged, or the network does not have such features.
    """
    return load_plain(weights, backbone, image_size, seed).with_features(features)


def load_plain(weights: str, backbone: str, image_size: int, seed: int) -> LoadedNetwork:
    """Load a pretrain run's backbone, one with weights from elsewhere, or a baseline: `random` weights, or `pixels`.

    Raises:
        InputError: no such run or weights, or their files are damaged.
    """
    if weights in BASELINES:
        spec = BackboneSpec("pixels" if weights == "pixels" else backbone, image_size or BASELINE_SIZE)
        return LoadedNetwork(build_backbone(spec, seed), spec)
    if is_weights_spec(weights):
        covariance = embedded_covariance() if weights == EMBEDDED else None
        return LoadedNetwork(*load_weights(weights, backbone, image_size), covariance)
    folder = fetch_artifact(find_run(weights, "pretrain").info.run_id, BACKBONE_ARTIFACT)
    network, spec = load_backbone(folder)
    resized = replace(spec, image_size=image_size or spec.image_size)
    check_size(network, resized)
    return LoadedNetwork(network, resized, load_covariance(folder))


def find_recipe(search_run: str, default: FinetuneRecipe) -> FinetuneRecipe:
    """Return the recipe that a search found, or the default where no search is named."""
    if not search_run:
        return default
    run = find_run(search_run, "search")
    return parse_recipe(Path(fetch_artifact(run.info.run_id, RECIPE_ARTIFACT)).read_text())
