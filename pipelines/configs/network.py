"""The network that a run starts from: `weights` names the weights, `backbone` the architecture."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.recipes.choices import Features


@dataclass(frozen=True, kw_only=True)
class Network:
    """Network that is pretrained."""

    weights: str = "random"
    """Weights to start from: embedded, a pretrain run, a file, timm, timm:TAG, torchvision:ENUM.NAME, or random."""
    backbone: str = "resnet10_small"
    """Architecture: any name of timm, or resnet9, resnet10, resnet10_fine or resnet10_small; a run and the embedded
    weights know their own."""
    image_size: int = 32
    """Side of the square input in pixels."""


@dataclass(frozen=True, kw_only=True)
class TrainNetwork:
    """Network that is trained."""

    weights: str = "random"
    """Weights to start from: embedded, a pretrain run, a file, timm, timm:TAG, torchvision:ENUM.NAME, or random."""
    backbone: str = "resnet10_small"
    """Architecture: any name of timm, or resnet9, resnet10, resnet10_fine or resnet10_small; a run and the embedded
    weights know their own."""
    image_size: int = 0
    """Side of the square input in pixels; 0 is the size that the weights were trained at, and 32 for random ones."""
    features: Features = "last"
    """Features that the head sees: of the last stage; of the last four (stages), which often transfer better; or of
    those whitened by the source's classes (embedded weights and pretrain runs know them), which often is best."""


@dataclass(frozen=True, kw_only=True)
class FewShotNetwork:
    """Network that is fine-tuned."""

    weights: str
    """Weights to start from: embedded (installed with this project), a pretrain run, a file, timm, timm:TAG,
    torchvision:ENUM.NAME, or a baseline: random (an untrained network) or pixels (no network at all)."""
    backbone: str = "resnet10_small"
    """Architecture: any name of timm, or resnet9, resnet10, resnet10_fine or resnet10_small; a run and the embedded
    weights know their own."""
    image_size: int = 0
    """Side of the square input in pixels; 0 is the size that the weights were trained at, and 32 for the baselines."""
    features: Features = "last"
    """Features that the head sees: of the last stage; of the last four (stages), which often transfer better; or of
    those whitened by the source's classes (embedded weights and pretrain runs know them), which often is best."""


@dataclass(frozen=True, kw_only=True)
class DemoNetwork:
    """Network that is fine-tuned, or pretrained first."""

    weights: str = ""
    """Weights to start from: embedded, a pretrain run, a file, timm, timm:TAG or torchvision:ENUM.NAME; empty
    pretrains on the source."""
    backbone: str = "resnet10_small"
    """Architecture: any name of timm, or resnet9, resnet10, resnet10_fine or resnet10_small; a run and the embedded
    weights know their own."""
    image_size: int = 0
    """Side of the square input in pixels; 0 is the size that the weights were trained at, and 32 for new ones."""


@dataclass(frozen=True, kw_only=True)
class ComparedNetworks:
    """Networks of which the best one is taken."""

    weights: str = "embedded"
    """Weights to start from, separated by commas: embedded (EfficientNet-Lite0, trained on ImageNet's photographs and
    installed with this project), mobilenet, dinov2 or convnext (downloaded), pretrain runs, files, timm, timm:TAG,
    torchvision:ENUM.NAME, random (an untrained network) or pixels (no network). Cross-validation chooses, anew in every
    fold."""
    backbone: str = "resnet10_small"
    """Architecture: any name of timm, or resnet9, resnet10, resnet10_fine or resnet10_small; a run and the embedded
    weights know their own."""
    image_size: int = 0
    """Side of the square input in pixels; 0 is the size that the weights were trained at, 32 for the baselines, and
    for the embedded weights the best of 64, 128 and 224."""
    features: Features = "whitened"
    """Features that the head sees: of the last stage, of the last four (stages), or those four whitened by the classes
    of the source; of networks that do not know their source, the four, and of those that do not show them, the last."""
