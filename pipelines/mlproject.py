"""The two files that `mlflow run` reads, generated so that they cannot disagree with the rest: `make mlproject`.

MLproject comes from the config dataclasses, conda.yaml from pyproject.toml's dependencies at the lock's versions.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

PYTHON = "3.11.7"
"""MLflow builds environments from an exact patch version only."""

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

_HEADER = """# Generated from the config dataclasses of pipelines/ by `make mlproject`; a test keeps them equal.
name: transfer-lab

conda_env: conda.yaml

entry_points:
"""

_CONDA_HEADER = """# Generated from pyproject.toml and requirements.lock by `make mlproject`; a test keeps them equal.
# For people who have only uv (or conda) and mlflow; inside our own .venv, --env-manager local is the fast way."""

_KINDS = {"int": "float", "float": "float"}  # MLflow knows float, string, path and uri


def config_type(entry_point: str) -> type:
    """The config dataclass of an entry point: `finetune` has `FinetuneConfig`."""
    module = import_module(f"pipelines.{entry_point}")
    name = "".join(part.capitalize() for part in entry_point.split("_")) + "Config"
    config: type = getattr(module, name)
    return config


def render_mlproject() -> str:
    """The text of MLproject."""
    return _HEADER + "\n".join(_render_entry_point(name) for name in ENTRY_POINTS)


def render_conda() -> str:
    """The text of conda.yaml: the direct dependencies, everything under pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = locked_versions()
    pins = [f"      - {name}=={versions[name]}" for name in project["dependencies"]]
    lines = [
        "name: transfer-lab",
        "channels: [conda-forge]",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
        "  - pip:",
    ]
    return "\n".join([_CONDA_HEADER, *lines, *pins, ""])


def project_version() -> str:
    """Our own version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def locked_versions() -> dict[str, str]:
    """Version of every package in requirements.lock, as it applies to `PYTHON` on Linux."""
    from packaging.requirements import Requirement

    environment = {"python_version": "3.11", "python_full_version": PYTHON, "sys_platform": "linux"}
    versions = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix(" \\"))
            if requirement.marker is None or requirement.marker.evaluate(environment):
                versions[requirement.name] = str(requirement.specifier).removeprefix("==")
    return versions


def _render_entry_point(name: str) -> str:
    rows = list(parameters(config_type(name)))
    lines = [f"  {name}:", "    parameters:"]
    for parameter, kind, default in rows:
        value = "" if default is MISSING else f", default: {_yaml(default)}"
        lines.append(f"      {parameter}: {{type: {_KINDS.get(kind, 'string')}{value}}}")
    options = " ".join(f"--{parameter} {{{parameter}}}" for parameter, _, _ in rows)
    return "\n".join([*lines, f'    command: "python -m pipelines.{name} {options}"', ""])


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


def _yaml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    (ROOT / "MLproject").write_text(render_mlproject())
    (ROOT / "conda.yaml").write_text(render_conda())
