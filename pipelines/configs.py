"""The config dataclasses of the entry points: which there are, and what they hold as flat fields."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

REPORT_ARTIFACT = "report.html"
"""Where a run keeps its report, and what `report` calls the file by default."""

ENTRY_POINTS = (
    "main",
    "prepare",
    "lr_find",
    "pretrain",
    "train",
    "finetune",
    "compare",
    "report",
    "search",
    "pareto",
    "fit",
    "export",
    "register",
    "register_backbone",
    "rollback",
    "predict",
    "recipe",
)


def config_type(entry_point: str) -> type:
    """The config dataclass of an entry point: `finetune` has `FinetuneConfig`."""
    module = import_module(f"pipelines.{entry_point}")
    name = "".join(part.capitalize() for part in entry_point.split("_")) + "Config"
    config: type = getattr(module, name)
    return config


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


def project_version() -> str:
    """Our own version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
