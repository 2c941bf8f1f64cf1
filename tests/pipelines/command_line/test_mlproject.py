"""MLproject and conda.yaml say what the configs and the lock say."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib

import pytest
import yaml

from pipelines.command_line.mlproject import locked_versions, render_conda, render_mlproject
from pipelines.configs.entry_points import ENTRY_POINTS, config_type
from pipelines.configs.fields import ROOT
from tl_core.recipes.engine import Engine
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.recipes.train import TrainRecipe


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
    for config in (config_type(name), Engine, EpisodeShape, FinetuneRecipe, PretrainRecipe, TrainRecipe):
        body = ast.parse(inspect.getsource(config)).body[0].body  # type: ignore[attr-defined]
        for statement, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and "Recipe" not in (kind := ast.unparse(statement.annotation)):
                assert kind in ("Engine", "EpisodeShape") or isinstance(getattr(following, "value", None), ast.Constant)


def test_help_needs_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "timm", "mlflow", "optuna", "sklearn", "pandas", "matplotlib"}
    imports = "; ".join(f"import pipelines.{name}" for name in (*ENTRY_POINTS, "ui"))
    code = f"{imports}; import sys; print(*sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == ""
