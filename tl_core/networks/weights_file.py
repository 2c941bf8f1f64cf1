"""Weights files of any trainer: which of the things in it are the weights, and what stands before their names."""

from __future__ import annotations

import argparse
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from tl_core.errors import InputError

Weights = dict[str, Tensor]

_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_DEPTH = 3  # containers in containers


def read_weights(path: Path, own: Mapping[str, Tensor]) -> Weights:
    """Read the weights of a network from a file that some trainer wrote, under the network's own names.

    Of several sets of weights in it, the one that fits the network best is taken, of equal ones an average. Trainers
    wrap networks, so that their names have prefixes: the one that most of them are found by is removed.

    Args:
        own: the network's own weights.

    Raises:
        InputError: no such file, a damaged one, or none with weights.
    """
    if not path.is_file():
        raise InputError(f"no weights file at {str(path)!r}")
    found = [_without_prefix(weights, own) for weights in _sets_of_weights(_read(path))]
    if not found:
        raise InputError(f"{path} is not a state dict: names with tensors")
    return max(found, key=lambda weights: _count_fitting(weights, own))  # the first of equal ones


def _read(path: Path) -> Any:
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # of timm's own checkpoints
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):  # cut off
            raise InputError(f"the weights in {path} cannot be read ({_first_line(error)})") from error
        raise InputError(f"{path} holds more than weights, and nothing else is unpickled; save a state dict") from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, SafetensorError) as error:
        raise InputError(f"the weights in {path} cannot be read ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _sets_of_weights(loaded: Any, depth: int = _DEPTH) -> Iterator[Weights]:
    """Yield every mapping from names to tensors in what a file holds, averages first."""
    if not isinstance(loaded, Mapping) or depth == 0:
        return
    names = sorted(loaded, key=lambda name: name not in _AVERAGES)
    for name in names:
        yield from _sets_of_weights(loaded[name], depth - 1)
    tensors = {str(name): loaded[name] for name in loaded if isinstance(loaded[name], Tensor)}
    if tensors:
        yield tensors


def _without_prefix(weights: Weights, own: Mapping[str, Tensor]) -> Weights:
    """Weights under the names that most of a network's own are found by; the other names are left out."""
    votes = Counter[str]()
    for name, value in weights.items():
        parts = name.split(".")
        for start in range(len(parts)):
            known = own.get(".".join(parts[start:]))
            if known is not None and known.shape == value.shape:
                votes[".".join([*parts[:start], ""]) if start else ""] += 1
    prefix, n_found = max(votes.items(), key=lambda vote: vote[1], default=("", 0))
    if 2 * n_found < len(own):  # of another family, or under the names of an earlier timm
        return {name.removeprefix("backbone."): value for name, value in clean_state_dict(weights).items()}
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _count_fitting(weights: Weights, own: Mapping[str, Tensor]) -> int:
    return sum(name in weights and weights[name].shape == value.shape for name, value in own.items())
