"""The documents: their commands parse, their links lead somewhere, their numbers are those of a logged run."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pipelines.command_line.command import parse_config
from pipelines.configs.entry_points import ENTRY_POINTS, config_type
from pipelines.configs.fields import parameters
from pipelines.inputs.networks import load_network
from tl_core.data.dataset import load_dataset
from tl_core.data.episodes import build_pool, sample_episode
from tl_core.fewshot.finetuner import Finetuner
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_COMMANDS = [path for path in DOCUMENTS if path.name != "experiments.md"]  # those are of their time

MOST_WORDS, MOST_LINES = 1000, 150


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
    """The entry points that a document runs, a line each, in either spelling."""
    return [line for line in commands(path) if re.match(r"transfer-lab \w|mlflow run \. ", line)]


def parse_run(line: str) -> tuple[str, dict[str, str]]:
    """The entry point of a line, in either spelling, and its arguments."""
    words = shlex.split(line, comments=True)
    if words[0] == "transfer-lab":
        _, name, *rest = words
        assert all(flag.startswith("--") for flag in rest[0::2]), line
        assert len(rest) % 2 == 0, line
        return name, {flag[2:]: value for flag, value in zip(rest[0::2], rest[1::2], strict=True)}
    assert words[:5] == ["mlflow", "run", ".", "--env-manager", "local"], line
    _, name, *rest = words[5:]
    assert words[5] == "-e", line
    assert rest[0::2] == ["-P"] * (len(rest) // 2), line
    return name, dict(word.split("=", 1) for word in rest[1::2])


def config_of(name: str, given: Mapping[str, str]) -> Any:
    """The config of an entry point with these arguments, as from its command line."""
    assert name in ENTRY_POINTS
    return parse_config(config_type(name), [part for key, value in given.items() for part in (f"--{key}", value)])


RUNS = [line for path in WITH_COMMANDS for line in runs_of(path)]


def test_the_commands_are_found() -> None:
    assert len(RUNS) > 45
    missing = set(ENTRY_POINTS) - {parse_run(line)[0] for line in RUNS}
    assert not missing


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= MOST_WORDS
    assert len(text.splitlines()) <= MOST_LINES


def test_the_readme_lists_every_entry_point() -> None:
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(set(table) & set(ENTRY_POINTS)) == sorted(ENTRY_POINTS)


def test_the_navigation_has_every_page_and_the_tutorials_come_first() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    pages = re.findall(r": (\w+\.md)$", nav, re.MULTILINE)
    assert set(pages) >= {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages[0] == "index.md"
    assert all(page.startswith("tutorial_") for page in pages[1:4])


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert len(text.split()) <= 1500
    for folder in ("tl_core", "pipelines"):
        for package in (path.parent.name for path in (ROOT / folder).glob("*/__init__.py")):
            assert f"{package}/" in text


@pytest.mark.parametrize("line", RUNS)
def test_a_run_of_the_documents_is_one_that_its_entry_point_takes(line: str) -> None:
    config_of(*parse_run(line))


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: path.name)
def test_other_commands_of_the_documents_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(path):
        words = shlex.split(line.split("|")[0].split("&&")[0], comments=True) if "'{" not in line else []
        if words[:1] == ["make"]:
            assert words[1] in targets
        if words[:2] == ["python", "-m"] and words[2] not in sys.stdlib_module_names:
            assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file() or (ROOT / words[2]).is_dir()


def test_the_places_to_add_something_exist() -> None:
    table = (
        (ROOT / "docs" / "architecture.md").read_text().partition("## Where to add something")[2].partition("\n\n")[2]
    )
    rows = [line for line in table.splitlines() if line.startswith("| a")]
    paths = {path for row in rows for path in re.findall(r"`([a-z_]+/[\w./]*)`", row)}
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for name, path in re.findall(r"`([A-Z_]+)` of `([\w./]+)`", table):
        assert re.search(rf"^{name}\b", (ROOT / path).read_text(), re.MULTILINE), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


def test_the_table_of_the_readme_is_that_of_the_logged_run() -> None:
    results = script("results")
    facts = json.loads(results.FACTS.read_text())
    text = results.README.read_text()
    assert results.insert_table(text, results.DEMO, results.render_table(facts)) == text
    for row in facts["methods"]:
        assert f"{100 * row['mean']:.2f} +- {100 * row['ci95']:.2f} % | {row['n']} | `{row['run'][:8]}`" in text


def test_the_examples_of_confidence_intervals_are_those_of_the_logged_run() -> None:
    results = script("results")
    facts, page = json.loads(results.FACTS.read_text()), results.INTERVALS_PAGE.read_text()
    table = results.render_differences(facts)
    assert results.insert_table(page, results.DIFFERENCES, table) == page
    known = results.render_table(facts) + table
    examples = re.findall(r"[\d.]+ \+- [\d.]+|[+-][\d.]+ to [+-][\d.]+", page)
    assert len(examples) >= 3
    assert all(example in known for example in examples)


def test_the_page_of_reproductions_states_what_their_files_state() -> None:
    results = script("results")
    text = results.REPRODUCTIONS_PAGE.read_text()
    assert results.insert_table(text, results.REPRODUCTIONS, results.render_reproductions()) == text


def test_the_reference_explains_every_parameter() -> None:
    reference = script("reference")
    for name in ENTRY_POINTS:
        described = list(reference.describe(config_type(name)))
        assert [field for field, _, _ in described] == [field for field, _, _ in parameters(config_type(name))]
        assert all(len(text) > 10 for _, _, text in described), name
    assert "| `weights` | required |" in reference.render_reference()


def test_the_figure_shows_an_episode_with_every_prediction_marked(colours: Path) -> None:
    figure = script("figure")
    dataset = load_dataset(str(colours), 24)
    backbone, spec = load_network("pixels", "", 24, 0)
    episode = sample_episode(build_pool(dataset, "all"), EpisodeShape(3, 2, 4), 0, 0)
    finetuner = Finetuner(backbone, spec, dataset, torch.device("cpu"))
    (result,) = finetuner.run_episodes([episode], FinetuneRecipe())
    drawn = figure.draw_episode(dataset, result, figure.describe_episode(result, "raw pixels", "90.00 +- 1.00 % (n=2)"))
    assert len(drawn.axes) == 3 * (2 + 4)
    marks = [axes.get_xlabel() for axes in drawn.axes if axes.get_xlabel()]
    assert len(marks) == len(episode.query_rows)
    assert sum(mark.endswith("\N{CHECK MARK}") for mark in marks) == round(result.accuracy * len(marks))
    assert "90.00 +- 1.00 % (n=2)" in drawn.texts[-1].get_text()
