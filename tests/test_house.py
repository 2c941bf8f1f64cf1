"""Where things live: what the import contracts of pyproject.toml cannot say."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.configs.entry_points import ENTRY_POINTS
from tests.conftest import ROOT

PIPELINES = ROOT / "pipelines"
PACKAGES = ("pipelines", "registry", "serving", "tl_core")
WHOLE_LINES = ("main", "classify", "reproduce")
"""Entry points that run others."""


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_the_files_of_pipelines_are_the_entry_points_and_nothing_else() -> None:
    assert {path.stem for path in PIPELINES.glob("*.py")} - {"__init__", "__main__"} == set(ENTRY_POINTS)


@pytest.mark.parametrize("name", sorted(set(ENTRY_POINTS) - set(WHOLE_LINES)))
def test_an_entry_point_imports_no_other(name: str) -> None:
    others = {f"pipelines.{other}" for other in ENTRY_POINTS}
    found = {".".join(of.split(".")[:2]) for of in imported(PIPELINES / f"{name}.py")}
    assert found & others == set()


@pytest.mark.parametrize("folder", [path.name for path in PIPELINES.iterdir() if (path / "__init__.py").exists()])
def test_no_package_of_pipelines_imports_an_entry_point(folder: str) -> None:
    others = {f"pipelines.{other}" for other in ENTRY_POINTS}
    for path in (PIPELINES / folder).rglob("*.py"):
        assert {".".join(of.split(".")[:2]) for of in imported(path)} & others == set(), path


def test_every_package_of_pipelines_has_a_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (of["layers"] for of in contracts if of.get("containers") == ["pipelines"])
    named = {name.strip() for layer in layers for name in layer.split("|")}
    assert {path.name for path in PIPELINES.iterdir() if (path / "__init__.py").exists()} <= named


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_is_a_catch_all_or_too_long_to_read(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert path.stem not in ("utils", "helpers", "common", "misc")
        assert len(path.read_text().splitlines()) <= 300, path
