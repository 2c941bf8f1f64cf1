"""Heads by name, imported when first used."""

from __future__ import annotations

from importlib import import_module

from tl_core.errors import InputError
from tl_core.heads.head import Head
from tl_core.recipes.heads import HEADS


def head_class(name: str) -> type[Head]:
    """Return the class of a head.

    Raises:
        InputError: there is no head of this name.
    """
    if name not in HEADS:
        raise InputError(f"expected a head out of {', '.join(HEADS)}, got {name!r}; take the version that wrote it")
    module, _, class_name = HEADS[name].location.partition(":")
    found: type[Head] = getattr(import_module(module), class_name)
    return found


def build_head(name: str, n_inputs: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Build a head by its name.

    Raises:
        InputError: there is no head of this name.
    """
    return head_class(name)(n_inputs, n_classes, dropout)
