"""Weights from elsewhere: a local file, timm's hub, or torchvision; never unpickled, never half-loaded.

A spec is the path of a `.safetensors`, `.pth` or `.pt` file, `timm` or `timm:TAG`, or `torchvision:ENUM.NAME`. Whatever
classifier the weights end in is dropped. Mean, deviation and, by default, the image size are those that timm records
for the architecture: they belong to the weights.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec, build_backbone, size_option

_HUB_TIMEOUT = 5  # seconds
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.", "backbone.")


def load_weights(spec: str, architecture: str, image_size: int) -> tuple[nn.Module, BackboneSpec]:
    """Build a backbone and load weights from elsewhere into it.

    Args:
        image_size: side of the input in pixels; 0 takes the size that the weights were trained at.

    Raises:
        InputError: no such file or hub, a damaged file, or weights of another architecture.
    """
    origin, _, name = spec.partition(":")
    tag = name if origin == "timm" else ""
    backbone_spec = _pretrained_spec(architecture, tag, image_size)
    backbone = build_backbone(backbone_spec, seed=0)
    if origin == "timm":
        weights = _from_timm(architecture, tag, backbone_spec)
    elif origin == "torchvision":
        weights = _from_torchvision(name)
    else:
        weights = _from_file(Path(spec))
    _load(backbone, weights, spec, architecture)
    return backbone, backbone_spec


def _pretrained_spec(architecture: str, tag: str, image_size: int) -> BackboneSpec:
    if not timm.is_model(architecture):
        build_backbone(BackboneSpec(architecture, max(image_size, 32)), seed=0)  # raises, naming what is near
    try:
        known = get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture, allow_unregistered=True)
    except RuntimeError as error:
        tags = ", ".join(name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*"))
        raise InputError(f"timm has no weights {architecture}.{tag}; allowed tags are {tags or 'none'}") from error
    if known is None:
        return BackboneSpec(architecture, image_size or 224)
    return BackboneSpec(architecture, image_size or known.input_size[1], tuple(known.mean), tuple(known.std))


def _from_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no weights file at {str(path)!r}") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds more than weights, and nothing else is unpickled; save a state dict") from error
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"the weights in {path} cannot be read ({reason})") from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path} is not a state dict: names with tensors")
    return {str(name): value for name, value in loaded.items()}


def _from_timm(architecture: str, tag: str, spec: BackboneSpec) -> dict[str, Tensor]:
    name = f"{architecture}.{tag}" if tag else architecture
    # Otherwise a failing download would be repeated for most of a minute; what was fetched before is found offline too.
    constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE or not _is_reachable(constants.ENDPOINT)
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0, **size_option(spec))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the weights {name!r} could not be fetched from timm's hub ({type(error).__name__}); "
            "without a network, give the path of a weights file"
        ) from error
    weights: dict[str, Tensor] = network.state_dict()
    return weights


def _is_reachable(url: str) -> bool:
    host = urlsplit(url)
    try:
        socket.create_connection((host.hostname or "", host.port or 443), timeout=_HUB_TIMEOUT).close()
    except OSError:
        return False
    return True


def _from_torchvision(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_weight

    try:
        entry = get_weight(name)
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"torchvision has no weights {name!r}; allowed is a name such as ResNet18_Weights.IMAGENET1K_V1"
        ) from error
    try:
        weights: dict[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise InputError(
            f"the weights {name!r} could not be downloaded ({error}); "
            "without a network, give the path of a weights file"
        ) from error
    return weights


def _load(backbone: nn.Module, weights: Mapping[str, Tensor], spec: str, architecture: str) -> None:
    own = backbone.state_dict()
    found = {_plain(name): value for name, value in weights.items()}
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"the weights {spec!r} are not those of {architecture}: they lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + "; give backbone=, the architecture that they are of (ARCH= of make classify)"
        )
    if "pos_embed" in own and own["pos_embed"].shape != found["pos_embed"].shape:
        found["pos_embed"] = resample_abs_pos_embed(
            found["pos_embed"],
            new_size=list(backbone.patch_embed.grid_size),  # type: ignore[union-attr, arg-type]
            num_prefix_tokens=int(backbone.num_prefix_tokens),  # type: ignore[arg-type]
        )
    for name, value in own.items():
        if name in found and found[name].shape != value.shape:
            raise InputError(
                f"the weights {spec!r} are not those of {architecture} at this image size: {name} has shape "
                f"{tuple(found[name].shape)}, not {tuple(value.shape)}"
            )
    backbone.load_state_dict({name: found.get(name, value) for name, value in own.items()})


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
