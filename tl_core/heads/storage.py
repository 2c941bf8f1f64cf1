"""Backbones and classifiers on disk: a folder with weights and their description."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.heads.classifier import Classifier, ClassifierDescription
from tl_core.heads.table import build_head
from tl_core.networks.backbones import BackboneSpec, build_backbone, n_features

_WEIGHTS, _DESCRIPTION, _COVARIANCE = "weights.safetensors", "description.json", "covariance.safetensors"


def save_backbone(backbone: nn.Module, spec: BackboneSpec, folder: Path, covariance: Tensor | None = None) -> None:
    """Write a backbone's weights and spec into a folder, and the covariance that its features may be whitened by."""
    _save(backbone, asdict(spec), folder)
    if covariance is not None:
        save_file({"stages": covariance.contiguous()}, folder / _COVARIANCE)


def load_backbone(folder: Path) -> tuple[nn.Module, BackboneSpec]:
    """Rebuild what `save_backbone` wrote.

    Raises:
        InputError: a file is missing, damaged or of another architecture.
    """
    spec = _parse(_load_description(folder), _backbone_spec)
    backbone = build_backbone(spec, seed=0)
    _load_weights(backbone, folder)
    return backbone, spec


def load_covariance(folder: Path) -> Tensor | None:
    """Covariance (d, d) that `save_backbone` wrote, or None where it wrote none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / _COVARIANCE
    if not path.is_file():
        return None
    try:
        return load_file(path)["stages"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{_COVARIANCE} beside the weights cannot be read ({error})") from error


def save_classifier(classifier: Classifier, description: ClassifierDescription, folder: Path) -> None:
    """Write a classifier's weights and description into a folder."""
    _save(classifier, asdict(description), folder)


def load_classifier(folder: Path) -> tuple[Classifier, ClassifierDescription]:
    """Rebuild what `save_classifier` wrote.

    Raises:
        InputError: a file is missing, damaged or of another architecture.
    """
    description = _parse(_load_description(folder), _classifier_description)
    spec = description.backbone
    backbone = build_backbone(spec, seed=0)
    shape = len(description.class_names), n_features(backbone, spec)
    head = build_head(description.head, shape[1], shape[0])
    means = torch.zeros(shape) if description.has_class_means else None
    classifier = Classifier(spec, backbone, head, description.test_views, description.temperature, means)
    _load_weights(classifier, folder)
    return classifier.eval(), description


Parsed = TypeVar("Parsed")


def _parse(fields: dict[str, Any], build: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    try:
        return build(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{_DESCRIPTION} beside the weights does not describe them ({error!r})") from error


def _classifier_description(fields: dict[str, Any]) -> ClassifierDescription:
    spec, names = _backbone_spec(fields["backbone"]), tuple(fields["class_names"])
    # Classifiers of earlier versions lack these.
    temperature, has_means = float(fields.get("temperature", 1.0)), bool(fields.get("has_class_means", False))
    below = fields.get("unlike_below")
    unlike_below = None if below is None else float(below)
    return ClassifierDescription(
        spec, names, fields["head"], fields["test_views"], temperature, has_means, unlike_below
    )


def _backbone_spec(fields: dict[str, Any]) -> BackboneSpec:
    return BackboneSpec(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def _save(module: nn.Module, description: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    save_file(state, folder / _WEIGHTS)
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=1))


def _load_description(folder: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads((folder / _DESCRIPTION).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"no readable {_DESCRIPTION} beside the weights ({error})") from error
    return fields


def _load_weights(module: nn.Module, folder: Path) -> None:
    try:
        module.load_state_dict(load_file(folder / _WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise InputError(f"the weights cannot be read ({error})") from error
    except RuntimeError as error:
        raise InputError(f"the weights are of another architecture ({str(error).splitlines()[0]})") from error
