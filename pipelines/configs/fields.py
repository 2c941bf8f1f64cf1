"""The fields of a config, with those of nested configs beside them."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def parameters(config: type, defaults: Any = None) -> list[tuple[str, str, Any]]:
    """Name, type and default of every flat field; `defaults` is the instance that a nested config starts from."""
    found: list[tuple[str, str, Any]] = []
    for field in fields(config):
        default = _default(field) if defaults is None else getattr(defaults, field.name)
        if is_dataclass(default):
            found += parameters(type(default), default)
        else:
            found.append((field.name, str(field.type), default))
    return found


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def flat_params(config: Any) -> dict[str, Any]:
    """A config's fields with those of nested configs beside them, as on the command line."""
    params: dict[str, Any] = {}
    for one in fields(config):
        value = getattr(config, one.name)
        params |= flat_params(value) if is_dataclass(value) else {one.name: value}
    return params
