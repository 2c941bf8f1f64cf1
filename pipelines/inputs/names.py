"""Names of networks: those that users give, those in records, and those in tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tl_core.networks.weights_spec import is_weights_spec

if TYPE_CHECKING:
    from tl_core.networks.backbones import BackboneSpec

BASELINES = ("random", "pixels")

_CONTAINER = re.compile(r"(\.tar)?\.(zip|tar|tgz|tbz2|txz|gz|bz2|xz|csv|tsv|jsonl|parquet)$", re.IGNORECASE)
_ID_LENGTH = 8  # of a run id, as much as tells it apart


def run_name(kind: str, data: str, weights: str = "", backbone: str = "", more: str = "") -> str:
    """Return a name that a run is known by in a table of runs: `finetune EuroSAT from 9ac97432`.

    Args:
        data: data spec.
        weights: weights that it starts from, if any; `backbone` is named with those that do not say their own.
        more: what else tells it apart.
    """
    return " ".join(filter(None, (kind, short_data(data), _say_start(weights, backbone), more)))


def short_data(spec: str) -> str:
    """Return a data spec as a name has it: the last part of each path, without the suffixes of archives and tables."""
    names = [Path(part.strip()).name or part for part in spec.split(",")]
    return "+".join(_CONTAINER.sub("", name) or name for name in names)


def short_model(model: str) -> str:
    """Return a model as a name has it: a registered version without its scheme, or a file's name."""
    return model.removeprefix("models:/") if model.startswith("models:/") else Path(model).name


def _say_start(weights: str, backbone: str) -> str:
    if not weights:
        return ""
    if is_run(weights):
        return f"from {weights[:_ID_LENGTH]}"
    named = f" {backbone}" if backbone and weights in ("random", "timm") else ""
    return f"from {Path(weights).name}{named}"


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
