"""Names of networks: those that users give, those in records, and those in tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tl_core.networks.weights_spec import is_weights_spec

if TYPE_CHECKING:
    from tl_core.networks.backbones import BackboneSpec

BASELINES = ("random", "pixels")


def is_run(weights: str) -> bool:
    """Return whether `weights` names one of our runs."""
    return weights not in BASELINES and not is_weights_spec(weights)


def network_name(network: str, spec: BackboneSpec, seed: int) -> str:
    """Return a name that tells networks apart: weights, architecture, image size and features."""
    built = f"{network}:{spec.architecture}:{spec.image_size}:{spec.features}"
    return f"{built}:{seed}" if network == "random" else built


def short_network(name: str) -> str:
    """Return a `network_name` as a table shows it: architecture and weights, without what rarely differs."""
    parts = name.split(":")
    if parts[0] == "random":
        parts.pop()  # the seed
    *weights, architecture, _, features = parts
    if weights == [architecture]:
        return architecture
    words = [architecture, short_weights(":".join(weights))]
    return ", ".join(words if features == "last" else [*words, features])


def short_weights(weights: str) -> str:
    """Return the weights as a table shows them: a run's first digits, a file's name, or the words given."""
    return f"run {weights[:8]}" if is_run(weights) else Path(weights).name
