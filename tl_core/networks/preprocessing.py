"""Mean, deviation and size of the images that weights were trained on: they belong to weights, not to architectures.

Interpolation and crop belong to them too, but do not travel: every image is decoded by one rule, in training as in
serving, and the head is fitted to what that gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torchvision.models import WeightsEnum

from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec, build_backbone

CONFIG_NAMES = ("config.json", "preprocessor_config.json")
"""Files beside weights that may say how images are normalised: timm's, and that of transformers."""

_RESCALES_INPUT = ("Inception_V3_Weights", "GoogLeNet_Weights")
"""Torchvision's networks that turn their normalisation into this one before the first layer."""
_RESCALED = (0.5, 0.5, 0.5)


def spec_of_timm(architecture: str, tag: str, image_size: int) -> BackboneSpec:
    """Spec with what timm records for an architecture, or for one of its tags.

    Args:
        image_size: side of the input in pixels; 0 takes the size that the weights were trained at.

    Raises:
        InputError: timm does not know the architecture or the tag.
    """
    if not timm.is_model(architecture):
        build_backbone(BackboneSpec(architecture, max(image_size, 32)), seed=0)  # raises, naming what is near
    try:
        known = get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture, allow_unregistered=True)
    except RuntimeError as error:
        tags = ", ".join(name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*"))
        raise InputError(f"expected a tag out of {tags or 'none'}, got {architecture}.{tag}") from error
    if known is None:
        return BackboneSpec(architecture, image_size or 224)
    return BackboneSpec(architecture, image_size or known.input_size[1], tuple(known.mean), tuple(known.std))


def with_torchvision(spec: BackboneSpec, entry: WeightsEnum, image_size: int) -> BackboneSpec:
    """Spec with mean, deviation and, where none is given, size of torchvision's transforms for the weights."""
    transforms = entry.transforms()
    if type(entry).__name__ in _RESCALES_INPUT:
        spec = replace(spec, mean=_RESCALED, std=_RESCALED)
    elif hasattr(transforms, "mean"):
        spec = replace(spec, mean=tuple(transforms.mean), std=tuple(transforms.std))
    return replace(spec, image_size=image_size or getattr(transforms, "crop_size", [spec.image_size])[0])


def with_config_beside(spec: BackboneSpec, path: Path) -> BackboneSpec:
    """Spec with mean and deviation of a config beside the weights' file, where there is one.

    Raises:
        InputError: the config cannot be read, or its mean and deviation are not three numbers each.
    """
    for name in CONFIG_NAMES:
        config = path.with_name(name)
        if not config.is_file():
            continue
        try:
            found = json.loads(config.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"expected JSON in {config}, got something else ({type(error).__name__})") from error
        if isinstance(found, dict) and (given := _statistics(found)):
            return replace(spec, mean=_three(given[0], config), std=_three(given[1], config))
    return spec


def _statistics(config: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Mean and deviation of a config, wherever timm or transformers keep them."""
    inner = config.get("pretrained_cfg")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for mean, std in (("mean", "std"), ("image_mean", "image_std")):
            if mean in part and std in part:
                return part[mean], part[std]
    return None


def _three(values: Any, config: Path) -> tuple[float, float, float]:
    if not (isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) for v in values)):
        raise InputError(f"expected three numbers for mean and std in {config}, got {values!r}")
    first, second, third = map(float, values)
    return first, second, third
