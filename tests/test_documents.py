"""The documents: their commands are ones that the entry points take, their numbers those of a logged run."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines.command_line.command import parse_config
from pipelines.configs.entry_points import ENTRY_POINTS, config_type
from pipelines.configs.fields import parameters

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_COMMANDS = [path for path in DOCUMENTS if path.name == "README.md" or path.name.startswith("tutorial_")]


def commands(path: Path) -> list[str]:
    """The lines of a document's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs_of(path: Path) -> list[str]:
    """The entry points that a document runs, a line each."""
    return [line for line in commands(path) if line.startswith("run -e ")]


def parse_run(line: str) -> tuple[str, dict[str, str]]:
    """The entry point of `run -e ...` and its arguments."""
    _, _, name, *words = shlex.split(line, comments=True)
    given = [word for word in words if word != "-P"]
    assert words[0::2] == ["-P"] * len(given)
    return name, dict(word.split("=", 1) for word in given)


def config_of(name: str, given: Mapping[str, str]) -> Any:
    """The config of an entry point with these arguments, as from its command line."""
    return parse_config(config_type(name), [part for key, value in given.items() for part in (f"--{key}", value)])


RUNS = [line for path in WITH_COMMANDS for line in runs_of(path)]


def test_the_commands_are_found() -> None:
    assert len(RUNS) > 25
    assert {line.split()[2] for line in RUNS} >= {"main", "pretrain", "finetune", "train", "search", "export", "report"}


@pytest.mark.parametrize("line", RUNS)
def test_a_run_of_the_documents_is_one_that_its_entry_point_takes(line: str) -> None:
    config_of(*parse_run(line))


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: path.name)
def test_other_commands_of_the_documents_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(path):
        words = shlex.split(line.split("|")[0], comments=True) if "'{" not in line else []
        if words[:1] == ["make"]:
            assert words[1] in targets
        if words[:2] == ["python", "-m"]:
            assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file() or (ROOT / words[2]).is_dir()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


def test_the_table_of_the_readme_is_what_the_logged_run_says() -> None:
    results = script("results")
    facts = json.loads(results.FACTS.read_text())
    text = results.README.read_text()
    assert results.insert_table(text, results.DEMO, results.render_table(facts)) == text
    for row in facts["methods"]:
        assert f"{100 * row['mean']:.2f} +- {100 * row['ci95']:.2f} % | {row['n']} | `{row['run'][:8]}`" in text


def test_the_readme_says_of_known_systems_what_their_recipes_say() -> None:
    results = script("results")
    text = results.README.read_text()
    assert results.insert_table(text, results.REPRODUCTIONS, results.render_reproductions()) == text


def test_the_reference_explains_every_parameter() -> None:
    reference = script("reference")
    for name in ENTRY_POINTS:
        described = list(reference.describe(config_type(name)))
        assert [field for field, _, _ in described] == [field for field, _, _ in parameters(config_type(name))]
        assert all(len(text) > 10 for _, _, text in described), name
    assert "| `weights` | required |" in reference.render_reference()
