"""MLproject is generated from the configs, so that the two cannot disagree: `make mlproject`."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ENTRY_POINTS = (
    "main",
    "prepare",
    "lr_find",
    "pretrain",
    "finetune",
    "search",
    "fit",
    "export",
    "register",
    "predict",
)

_HEADER = """# Generated from the config dataclasses of pipelines/ by `make mlproject`; a test keeps them equal.
name: transfer-lab

conda_env: conda.yaml

entry_points:
"""

_KINDS = {"int": "float", "float": "float"}  # MLflow knows float, string, path and uri


def config_type(entry_point: str) -> type:
    """The config dataclass of an entry point: `finetune` has `FinetuneConfig`."""
    module = import_module(f"pipelines.{entry_point}")
    name = "".join(part.capitalize() for part in entry_point.split("_")) + "Config"
    config: type = getattr(module, name)
    return config


def render() -> str:
    """The text of MLproject."""
    return _HEADER + "\n".join(_render_entry_point(name) for name in ENTRY_POINTS)


def _render_entry_point(name: str) -> str:
    parameters = list(_parameters(config_type(name)))
    lines = [f"  {name}:", "    parameters:"]
    for parameter, kind, default in parameters:
        value = "" if default is MISSING else f", default: {_yaml(default)}"
        lines.append(f"      {parameter}: {{type: {_KINDS.get(kind, 'string')}{value}}}")
    options = " ".join(f"--{parameter} {{{parameter}}}" for parameter, _, _ in parameters)
    return "\n".join([*lines, f'    command: "python -m pipelines.{name} {options}"', ""])


def _parameters(config: type, defaults: Any = None) -> list[tuple[str, str, Any]]:
    """Name, type and default of every flat field; `defaults` is the instance that a nested config starts from."""
    found: list[tuple[str, str, Any]] = []
    for field in fields(config):
        default = _default(field) if defaults is None else getattr(defaults, field.name)
        if is_dataclass(default):
            found += _parameters(type(default), default)
        else:
            found.append((field.name, str(field.type), default))
    return found


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _yaml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("MLproject").write_text(render())
