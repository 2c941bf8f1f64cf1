"""The library: data, episodes, backbones, training, fine-tuning, scoring, search and export.

The names below are the library's public face; docs/python.md shows them. Each is imported when it is first used, so
that serving, and a registered model's copy of this file, need nothing of what they do not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_core.compute.devices import pick_device
    from tl_core.data.dataset import ImageDataset, load_dataset
    from tl_core.data.episodes import Episode, EpisodePool, build_pool, sample_episode
    from tl_core.errors import InputError
    from tl_core.export.onnx_file import check_parity, export_onnx
    from tl_core.fewshot.finetuner import Finetuner
    from tl_core.fewshot.results import EpisodeResult
    from tl_core.heads.classifier import Classifier
    from tl_core.heads.storage import load_backbone, load_classifier, save_backbone, save_classifier
    from tl_core.networks.backbones import BackboneSpec, build_backbone
    from tl_core.networks.weights import load_weights
    from tl_core.recipes.episode import EpisodeShape
    from tl_core.recipes.finetune import FinetuneRecipe
    from tl_core.scoring.episodes import Estimate, compare_all, estimate, paired_difference

_MODULES = {
    "compute.devices": ("pick_device",),
    "data.dataset": ("ImageDataset", "load_dataset"),
    "data.episodes": ("Episode", "EpisodePool", "build_pool", "sample_episode"),
    "errors": ("InputError",),
    "export.onnx_file": ("check_parity", "export_onnx"),
    "fewshot.finetuner": ("Finetuner",),
    "fewshot.results": ("EpisodeResult",),
    "heads.classifier": ("Classifier",),
    "heads.storage": ("load_backbone", "load_classifier", "save_backbone", "save_classifier"),
    "networks.backbones": ("BackboneSpec", "build_backbone"),
    "networks.weights": ("load_weights",),
    "recipes.episode": ("EpisodeShape",),
    "recipes.finetune": ("FinetuneRecipe",),
    "scoring.episodes": ("Estimate", "compare_all", "estimate", "paired_difference"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BackboneSpec",
    "Classifier",
    "Episode",
    "EpisodePool",
    "EpisodeResult",
    "EpisodeShape",
    "Estimate",
    "FinetuneRecipe",
    "Finetuner",
    "ImageDataset",
    "InputError",
    "build_backbone",
    "build_pool",
    "check_parity",
    "compare_all",
    "estimate",
    "export_onnx",
    "load_backbone",
    "load_classifier",
    "load_dataset",
    "load_weights",
    "paired_difference",
    "pick_device",
    "sample_episode",
    "save_backbone",
    "save_classifier",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
