"""Pretrained weights from a local file, timm's hub or torchvision; never unpickled, never half-loaded.

A spec is `embedded`, one of `NAMED` such as `dinov2`, the path of a file (`.safetensors`, `.pth`, `.pt`, `.ckpt`,
`.bin`), `timm` or `timm:TAG`, or `torchvision:ENUM.NAME`. Whatever classifier the weights end in is dropped. Mean,
deviation and, by default, the image size are those of the weights; see `preprocessing`.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import timm
from huggingface_hub import errors, snapshot_download
from timm.layers import resample_abs_pos_embed
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_weight

from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec, build_backbone, size_option
from tl_core.networks.embedded import embedded_weights
from tl_core.networks.preprocessing import spec_of_timm, with_config_beside, with_torchvision
from tl_core.networks.weights_file import read_weights
from tl_core.networks.weights_spec import EMBEDDED, EMBEDDED_ARCHITECTURE, NAMED

_WEIGHTS = "model.safetensors"
"""The file of timm's repositories on the hub."""


def load_weights(spec: str, architecture: str, image_size: int) -> tuple[nn.Module, BackboneSpec]:
    """Build a backbone and load pretrained weights into it, resized for the image size as timm does.

    Args:
        architecture: name in timm's registry; `embedded` and the named ones have their own.
        image_size: side of the input in pixels; 0 takes the size that the weights were trained at.

    Raises:
        InputError: no such file or hub, a damaged file, or weights of another architecture.
    """
    if named := NAMED.get(spec):
        return load_weights(f"timm:{named.tag}", named.architecture, image_size or named.image_size)
    origin, _, name = spec.partition(":")
    if spec == EMBEDDED:
        architecture = EMBEDDED_ARCHITECTURE
    tag = name if origin == "timm" else ""
    backbone_spec = spec_of_timm(architecture, tag, image_size)
    entry = _torchvision_entry(name) if origin == "torchvision" else None
    if entry is not None:
        backbone_spec = with_torchvision(backbone_spec, entry, image_size)
    elif origin != "timm" and spec != EMBEDDED:
        backbone_spec = with_config_beside(backbone_spec, Path(spec))
    backbone = build_backbone(backbone_spec, seed=0)
    if spec == EMBEDDED:
        weights = embedded_weights(backbone)
    elif origin == "timm":
        weights = _from_timm(architecture, tag, backbone_spec)
    elif entry is not None:
        weights = _from_torchvision(entry)
    else:
        weights = read_weights(Path(spec), backbone.state_dict())
    _load(backbone, weights, spec, architecture)
    return backbone, backbone_spec


def _from_timm(architecture: str, tag: str, spec: BackboneSpec) -> dict[str, Tensor]:
    name = f"{architecture}.{tag}" if tag else architecture
    known = get_pretrained_cfg(name)
    try:
        if known is not None and known.hf_hub_id:
            # This call gives up at once where the hub is unreachable and nothing is cached, while the ones that timm
            # makes are repeated for a minute.
            _check_hash(Path(snapshot_download(known.hf_hub_id, allow_patterns=["config.json", _WEIGHTS]), _WEIGHTS))
        network = timm.create_model(name, pretrained=True, num_classes=0, **size_option(spec))
    except (OSError, RuntimeError, errors.HTTPError) as error:  # type: ignore[attr-defined] # whatever client the hub has
        raise InputError(
            f"the weights {name!r} could not be fetched from timm's hub ({type(error).__name__}); "
            "without a network, give the path of a weights file"
        ) from error
    weights: dict[str, Tensor] = network.state_dict()
    return weights


def _check_hash(path: Path) -> None:
    """Compare a download with the SHA-256 that the hub gave of it, by which its cache names large files.

    Raises:
        InputError: it holds something else.
    """
    stored = path.resolve()
    if not stored.is_file() or not re.fullmatch(r"[0-9a-f]{64}", stored.name):
        return
    with stored.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != stored.name:
        raise InputError(
            f"expected {path.name} with SHA-256 {stored.name[:12]}..., as the hub says, got {found[:12]}...; "
            f"delete {stored} to download it again"
        )


def _torchvision_entry(name: str) -> WeightsEnum:
    try:
        return get_weight(name)
    except (ValueError, AttributeError) as error:
        raise InputError(f"expected weights such as ResNet18_Weights.IMAGENET1K_V1, got {name!r}") from error


def _from_torchvision(entry: WeightsEnum) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = entry.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise InputError(
            f"the weights {str(entry)!r} could not be downloaded ({error}); "
            "without a network, give the path of a weights file"
        ) from error
    return weights


def _load(backbone: nn.Module, weights: Mapping[str, Tensor], spec: str, architecture: str) -> None:
    own = backbone.state_dict()
    found = weights if _fits(weights, own) else _adapt(weights, backbone, architecture)
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"the weights {spec!r} are not those of {architecture}: they lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + "; give backbone=, the architecture that they are of (BACKBONE= of make classify)"
        )
    for name, value in own.items():
        if name in found and found[name].shape != value.shape:
            raise InputError(
                f"the weights {spec!r} are not those of {architecture} at this image size: {name} has shape "
                f"{tuple(found[name].shape)}, not {tuple(value.shape)}"
            )
    broken = next((name for name in own if name in found and not found[name].isfinite().all()), None)
    if broken is not None:
        raise InputError(
            f"the weights {spec!r} hold values that are not finite, in {broken}: their training diverged; give an "
            "earlier checkpoint"
        )
    backbone.load_state_dict({name: found.get(name, value) for name, value in own.items()})


def _fits(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    return all(
        name in weights and weights[name].shape == value.shape
        for name, value in own.items()
        if not name.endswith("num_batches_tracked")
    )


def _adapt(weights: Mapping[str, Tensor], backbone: nn.Module, architecture: str) -> Mapping[str, Tensor]:
    """Convert weights by the filter that timm has for the family: older names, other image sizes.

    Weights that the filter fails on are not of this family; they are returned as they are, to be refused by name.
    """
    family = sys.modules[timm.model_entrypoint(architecture).__module__]
    try:
        adapted: dict[str, Tensor] = dict(weights)
        if hasattr(family, "checkpoint_filter_fn"):
            adapted = family.checkpoint_filter_fn(adapted, backbone)
        own, found = backbone.state_dict().get("pos_embed"), adapted.get("pos_embed")
        if own is not None and found is not None and own.shape != found.shape:  # CaiT's filter leaves them alone
            grid: list[int] = list(backbone.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
            n_prefix = own.shape[1] - math.prod(grid)
            adapted["pos_embed"] = resample_abs_pos_embed(found, new_size=grid, num_prefix_tokens=n_prefix)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return weights
    return adapted
