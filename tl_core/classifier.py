"""A classifier: scaling and normalisation, backbone, head; and its two files on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """float (n, 3, h, w) in [0, 1] to normalised float of the same shape."""
        return (images - self.mean) / self.std  # type: ignore[operator]


class CosineHead(nn.Module):
    """Logits from the cosine between centred features and one learned direction per class.

    Cosine heads are Gidaris and Komodakis (2018), centring is Wang et al. (2019); here the centre is the mean of
    the support features, which is all an inductive method may know of the target.
    """

    def __init__(self, n_inputs: int, n_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_classes, n_inputs))
        nn.init.normal_(self.weight, std=n_inputs**-0.5)
        self.scale = nn.Parameter(torch.tensor(COSINE_SCALE))
        self.register_buffer("centre", torch.zeros(n_inputs))

    def forward(self, features: Tensor) -> Tensor:
        """(n, n_inputs) to logits (n, n_classes)."""
        return self.scale * F.normalize(features - self.centre, dim=1) @ F.normalize(self.weight, dim=1).T


def build_head(kind: Head, n_inputs: int, n_classes: int) -> nn.Module:
    """A fresh head of one kind: features (n, n_inputs) to logits (n, n_classes)."""
    return CosineHead(n_inputs, n_classes) if kind == "cosine" else nn.Linear(n_inputs, n_classes)


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
    spec = _backbone_spec(_load_description(folder))
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
    fields = _load_description(folder)
    spec = _backbone_spec(fields["backbone"])
    description = ClassifierDescription(spec, tuple(fields["class_names"]), fields["head"])
    backbone = build_backbone(spec, seed=0)
    head = build_head(description.head, n_features(backbone, spec), len(description.class_names))
    classifier = Classifier(spec, backbone, head)
    _load_weights(classifier, folder)
    return classifier.eval(), description


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
