"""MLproject and conda.yaml say what the configs and the lock say."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import get_type_hints

import pytest
import yaml

from pipelines.command_line.mlproject import locked_versions, render_conda, render_mlproject
from pipelines.configs.entry_points import ENTRY_POINTS, config_type
from pipelines.configs.fields import ROOT


def test_mlproject_equals_the_configs() -> None:
    assert (ROOT / "MLproject").read_text() == render_mlproject(), "run `make mlproject`"


def test_conda_yaml_equals_the_lock() -> None:
    assert (ROOT / "conda.yaml").read_text() == render_conda(), "run `make mlproject`"


def test_every_dependency_is_locked_with_a_hash_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert "transfer-lab[lab]" in extras["dev"]
    direct = {*project["dependencies"], *extras["lab"], *extras["dev"]} - {"transfer-lab[lab]"}
    assert direct <= locked_versions().keys()
    assert "://" not in lock
    assert lock.count("--hash=sha256:") > len(locked_versions())


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_parameter_reaches_the_command(name: str) -> None:
    entry = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][name]
    assert entry["command"].startswith(f"python -m pipelines.{name} ")
    for parameter in entry["parameters"]:
        assert f"--{parameter} {{{parameter}}}" in entry["command"]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_field_is_documented(name: str) -> None:
    def check(config: type) -> None:
        body = ast.parse(inspect.getsource(config)).body[0].body  # type: ignore[attr-defined]
        described = [
            statement.target.id  # type: ignore[union-attr]
            for statement, below in pairwise(body)
            if isinstance(statement, ast.AnnAssign) and isinstance(getattr(below, "value", None), ast.Constant)
        ]
        kinds = get_type_hints(config)
        for field in fields(config):
            if is_dataclass(kinds[field.name]):
                check(kinds[field.name])
            else:
                assert field.name in described

    check(config_type(name))


def test_help_needs_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "timm", "mlflow", "optuna", "sklearn", "pandas", "matplotlib"}
    imports = "; ".join(f"import pipelines.{name}" for name in ENTRY_POINTS)
    code = f"{imports}; import sys; print(*sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == ""
