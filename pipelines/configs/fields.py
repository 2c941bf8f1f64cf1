"""Configs are composed of groups; their fields are flat on the command line, in MLproject and among a run's params."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

ROOT = Path(__file__).resolve().parents[2]

Config = TypeVar("Config")


def parameters(config_type: type, defaults: Any = None) -> list[tuple[str, str, Any]]:
    """List name, type and default of every flat field; `defaults` is the instance that a group starts from."""
    found: list[tuple[str, str, Any]] = []
    for field, group in _fields(config_type):
        default = _default(field) if defaults is None else getattr(defaults, field.name)
        if group is not None:
            found += parameters(group, None if default is MISSING else default)
        else:
            found.append((field.name, str(field.type), default))
    return found


def flat_params(config: Any) -> dict[str, Any]:
    """Return a config's values with those of its groups beside them, as on the command line."""
    params: dict[str, Any] = {}
    for one in fields(config):
        value = getattr(config, one.name)
        params |= flat_params(value) if is_dataclass(value) else {one.name: value}
    return params


def make_config(config_type: type[Config], **values: Any) -> Config:
    """Build a config from flat values; a whole group may be given under its own name.

    Raises:
        TypeError: a name that the config does not have, or a missing value that has no default.
    """
    config = _make(config_type, values)
    if values:
        raise TypeError(f"{config_type.__name__} has no field {', '.join(values)}")
    return config


def with_values(config: Config, **values: Any) -> Config:
    """Return the config with some flat values, or whole groups, replaced.

    Raises:
        TypeError: a name that the config does not have.
    """
    changed: Config = _replaced(config, values)
    if values:
        raise TypeError(f"{type(config).__name__} has no field {', '.join(values)}")
    return changed


def _make(config_type: type[Config], values: dict[str, Any]) -> Config:
    """Build a config and take from `values` what it uses."""
    given: dict[str, Any] = {}
    for field, group in _fields(config_type):
        default = _default(field)
        if _is_meant(field.name, group, values):
            given[field.name] = values.pop(field.name)
        elif group is not None:
            given[field.name] = _make(group, values) if default is MISSING else _replaced(default, values)
    return config_type(**given)


def _replaced(config: Any, values: dict[str, Any]) -> Any:
    changes = {}
    for one in fields(config):
        value = getattr(config, one.name)
        if _is_meant(one.name, type(value) if is_dataclass(value) else None, values):
            changes[one.name] = values.pop(one.name)
        elif is_dataclass(value):
            changes[one.name] = _replaced(value, values)
    return replace(config, **changes)


def _is_meant(name: str, group: type | None, values: dict[str, Any]) -> bool:
    """Return whether a value is given for this field, and not for one of the same name inside the group."""
    return name in values and (group is None or is_dataclass(values[name]))


def _fields(config_type: type) -> Iterator[tuple[Field[Any], type | None]]:
    """Yield every field with its type, if that is a group."""
    hints = get_type_hints(config_type)
    for field in fields(config_type):
        group = hints[field.name]
        yield field, group if is_dataclass(group) and isinstance(group, type) else None


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
