"""A classifier: scaling and normalisation, backbone, head; and its two files on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.augment import to_float
from tl_core.backbones import BackboneSpec, build_backbone, n_features
from tl_core.errors import InputError
from tl_core.recipes import Head

_WEIGHTS, _DESCRIPTION = "weights.safetensors", "description.json"

COSINE_SCALE = 10.0


class Normalise(nn.Module):
    """Channel-wise (x - mean) / std on float (n, 3, h, w) in [0, 1]."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """float (n, 3, h, w) in [0, 1] to normalised float of the same shape."""
        return (images - self.mean) / self.std


class FewShotHead(nn.Module):
    """Logits from features that are first centred and scaled by what the support images say of them.

    `linear` is multinomial logistic regression. `cosine` compares directions, one learned direction per class
    (Gidaris and Komodakis, 2018). Centring is Wang et al. (2019), here by the support's mean, which is all that an
    inductive method may know of the target; without it the features of a backbone all point the same way.
    """

    def __init__(self, kind: Head, n_inputs: int, n_classes: int) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.zeros(n_classes, n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_classes))
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(n_inputs))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """(n, n_inputs) to logits (n, n_classes)."""
        points = self.points(features)
        if self.kind == "cosine":
            return COSINE_SCALE * points @ F.normalize(self.weight, dim=1).T + self.bias
        return points @ self.weight.T + self.bias

    def points(self, features: Tensor) -> Tensor:
        """Centred features, scaled to root mean square length 1 over the support, or each to length 1."""
        centred = features - self.centre
        return F.normalize(centred, dim=1) if self.kind == "cosine" else centred / self.scale

    @torch.no_grad()
    def start_from_prototypes(self, features: Tensor, labels: Tensor) -> None:
        """Set the head so that it classifies by the nearest class mean (Snell et al., 2017).

        Args:
            features: (n, n_inputs) of the support images; labels: int64 (n,).
        """
        self.centre.copy_(features.mean(0))
        self.scale.copy_((features - self.centre).square().sum(1).mean().sqrt().clamp(min=1e-12))
        points = self.points(features)
        members = F.one_hot(labels, len(self.bias)).to(points.dtype)
        prototypes = (members.T @ points) / members.sum(0)[:, None]
        if self.kind == "cosine":
            self.weight.copy_(F.normalize(prototypes, dim=1))
            return
        # -|x - p|^2 / 2 up to a term that all classes share, sharpened as the cosine head is.
        self.weight.copy_(COSINE_SCALE * prototypes)
        self.bias.copy_(-0.5 * COSINE_SCALE * prototypes.square().sum(1))


class Classifier(nn.Module):
    """uint8 images (n, h, w, 3) to logits (n, n_classes)."""

    def __init__(self, spec: BackboneSpec, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, h, w, 3) to logits (n, n_classes)."""
        logits: Tensor = self.head(self.backbone(self.normalise(to_float(images))))
        return logits


@dataclass(frozen=True)
class ClassifierDescription:
    """What must be known to rebuild a classifier."""

    backbone: BackboneSpec
    class_names: tuple[str, ...]
    head: Head


def save_backbone(backbone: nn.Module, spec: BackboneSpec, folder: Path) -> None:
    """Write a backbone's weights and spec into a folder."""
    _save(backbone, asdict(spec), folder)


def load_backbone(folder: Path) -> tuple[nn.Module, BackboneSpec]:
    """Rebuild what `save_backbone` wrote.

    Raises:
        InputError: a file is missing, damaged or of another architecture.
    """
    spec = _parse(_load_description(folder), _backbone_spec)
    backbone = build_backbone(spec, seed=0)
    _load_weights(backbone, folder)
    return backbone, spec


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
    head = FewShotHead(description.head, n_features(backbone, spec), len(description.class_names))
    classifier = Classifier(spec, backbone, head)
    _load_weights(classifier, folder)
    return classifier.eval(), description


Parsed = TypeVar("Parsed")


def _parse(fields: dict[str, Any], build: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    try:
        return build(fields)
    except (KeyError, TypeError) as error:
        raise InputError(f"{_DESCRIPTION} beside the weights does not describe them ({error!r})") from error


def _classifier_description(fields: dict[str, Any]) -> ClassifierDescription:
    return ClassifierDescription(_backbone_spec(fields["backbone"]), tuple(fields["class_names"]), fields["head"])


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
