"""Checks of hyper-parameters: each raises one sentence that says what was expected and what came."""

from __future__ import annotations

import math

from tl_core.errors import InputError
from tl_core.recipes.choices import AUGMENT_OPS, MaxLr


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `InputError` unless low <= value <= high; NaN lies in no range."""
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"expected {name} from {low:g} to {high:g}, got {value}")


def check_count(name: str, value: int, low: int, high: int) -> None:
    """Raise `InputError` unless value is a whole number from low to high."""
    check_range(name, value, low, high)
    if not isinstance(value, int):
        raise InputError(f"expected {name} as a whole number from {low} to {high}, got {value!r}")


def check_seed(seed: int) -> None:
    """Raise `InputError` unless a seed suits every random generator that is used."""
    check_count("seed", seed, 0, 2**31 - 1)


def check_max_lr(value: MaxLr) -> None:
    """Raise `InputError` unless value is a learning rate or `auto`."""
    if value == "auto":
        return
    if not isinstance(value, float | int):
        raise InputError(f"expected max_lr as auto, or a number from 1e-09 to 100, got {value!r}")
    check_range("max_lr", value, 1e-9, 100)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `InputError` unless value is one of the choices."""
    if value not in choices:
        raise InputError(f"expected {name} as one of {', '.join(choices)}, got {value!r}")


def parse_augment(augment: str) -> tuple[str, ...]:
    """Split `"crop+flip"` into its operations; `"none"` is the empty tuple.

    Raises:
        InputError: an operation that is not in `AUGMENT_OPS`.
    """
    ops = () if augment == "none" else tuple(str(augment).split("+"))
    for op in ops:
        if op not in AUGMENT_OPS:
            raise InputError(f"expected augment as none, or {', '.join(AUGMENT_OPS)} joined by +, got {augment!r}")
    return ops
