"""Devices, and the precision of matrix products on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tl_core.errors import InputError
from tl_core.recipes.choices import Device, Precision


def pick_device(device: Device) -> torch.device:
    """The device asked for; `auto` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: the device is not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    if not present[device]:
        found = ", ".join(name for name, there in present.items() if there)
        raise InputError(f"device is {device}, which this machine does not have; it has {found}")
    return torch.device(device)


def pick_dtype(precision: Precision, device: torch.device, network: nn.Module) -> torch.dtype:
    """The dtype for autocast: bfloat16 if asked for, or if `auto` and the device trains this network fast in it.

    Args:
        network: all of it, trained or not: a single depthwise convolution makes `auto` float32 on a CPU.
    """
    if precision == "auto":
        fast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else _cpu_multiplies_bfloat16(device) and not has_depthwise(network)
        )
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def has_depthwise(network: nn.Module) -> bool:
    """Return whether any convolution is depthwise; a CPU is slow at the bfloat16 gradients of many of those."""
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return any(1 < of.groups == of.in_channels for of in convolutions)


def _cpu_multiplies_bfloat16(device: torch.device) -> bool:
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: with another number of them, sums are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
