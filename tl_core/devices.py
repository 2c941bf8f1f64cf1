"""Where tensors live and in which precision they are multiplied."""

from __future__ import annotations

import torch

from tl_core.errors import InputError
from tl_core.recipes import Device, Precision


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


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype for autocast: bfloat16 if asked for, or if `auto` and the device multiplies it in hardware."""
    if precision == "auto":
        fast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else _cpu_multiplies_bfloat16(device)
        )
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _cpu_multiplies_bfloat16(device: torch.device) -> bool:
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))
