"""The two files that `mlflow run` reads, generated so that they cannot disagree with the rest: `make mlproject`.

MLproject comes from the config dataclasses, conda.yaml from pyproject.toml's dependencies and its extra `lab`, at the
lock's versions.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING
from typing import Any

from pipelines.configs.entry_points import ENTRY_POINTS, config_type
from pipelines.configs.fields import ROOT, parameters

PYTHON = "3.11.7"
"""MLflow builds environments from an exact patch version only."""

_HEADER = """# Generated from the config dataclasses of pipelines/ by `make mlproject`; a test keeps them equal.
name: transfer-lab

conda_env: conda.yaml

entry_points:
"""

_CONDA_HEADER = """# Generated from pyproject.toml and requirements.lock by `make mlproject`; a test keeps them equal.
# For people who have only uv (or conda) and mlflow; inside our own .venv, --env-manager local is the fast way."""

_KINDS = {"int": "float", "float": "float"}  # MLflow knows float, string, path and uri


def render_mlproject() -> str:
    """The text of MLproject."""
    return _HEADER + "\n".join(_render_entry_point(name) for name in ENTRY_POINTS)


def render_conda() -> str:
    """The text of conda.yaml: what serving and the lab need directly, everything under pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = locked_versions()
    direct = sorted([*project["dependencies"], *project["optional-dependencies"]["lab"]])
    pins = [f"      - {name}=={versions[name]}" for name in direct]
    lines = [
        "name: transfer-lab",
        "channels: [conda-forge]",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
        "  - pip:",
    ]
    return "\n".join([_CONDA_HEADER, *lines, *pins, ""])


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


def _yaml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    (ROOT / "MLproject").write_text(render_mlproject())
    (ROOT / "conda.yaml").write_text(render_conda())
