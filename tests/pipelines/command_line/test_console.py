"""`transfer-lab NAME`: the commands by their names, from any folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from pipelines.command_line import console
from pipelines.command_line.reproduction_files import reproduction_names
from pipelines.configs.entry_points import ENTRY_POINTS, project_version
from pipelines.configs.fields import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

START = "import sys; from pipelines.command_line.console import main; sys.argv[0] = 'transfer-lab'; main()"


def transfer_lab(*arguments: str, folder: Path = ROOT, start: str = START) -> subprocess.CompletedProcess[str]:
    """The console script in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    command = [sys.executable, "-c", start, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_name_every_entry_point_is_listed_with_a_line(arguments: tuple[str, ...]) -> None:
    done = transfer_lab(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: transfer-lab NAME ")
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line[:2] == "  " != line[1:3])
    assert list(listed) == [*ENTRY_POINTS]
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert all(len(purpose) > 10 for purpose in listed.values())


def test_python_m_pipelines_lists_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip("\n") == console.list_commands("python -m pipelines NAME")


def test_listing_imports_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "timm", "mlflow", "optuna", "sklearn", "pandas", "matplotlib", "tyro"}
    listed = transfer_lab(start=f"{START}; print(*sorted({heavy} & set(sys.modules)))")
    assert listed.stdout.splitlines()[-1] == ""


def test_every_command_is_a_module_that_runs() -> None:
    for name in console.ENTRY_POINTS:
        assert (ROOT / "pipelines" / f"{name}.py").is_file()


def test_a_command_runs_from_another_folder(
    colours: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["transfer-lab", "prepare", "--data", "colours", "--json"])
    console.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["metrics"]["n_images"] == 60
    assert mlflow.MlflowClient().get_run(last["run_id"]).info.status == "FINISHED"


def test_usage_has_the_name_that_was_typed() -> None:
    assert transfer_lab("rollback", "--help").stdout.startswith("usage: transfer-lab rollback ")
    module = [sys.executable, "-m", "pipelines.rollback", "--help"]
    done = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m pipelines.rollback ")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_reproduce_lists_the_known_systems(arguments: tuple[str, ...]) -> None:
    done = transfer_lab("reproduce", *arguments)
    assert done.returncode == 0
    lines = done.stdout.partition("Known systems:\n")[2].splitlines()
    assert [line.split()[0] for line in lines[: len(reproduction_names())]] == reproduction_names()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("finetun", "did you mean finetune?"), ("xyz", "transfer-lab --help lists them")],
)
def test_an_unknown_name_is_one_sentence_and_exit_code_2(name: str, hint: str) -> None:
    done = transfer_lab(name)
    assert done.returncode == 2
    assert done.stderr == f"error: expected the name of a command, got {name!r}; {hint}\n"


def test_without_the_extra_lab_a_command_says_what_to_install() -> None:
    done = transfer_lab("prepare", start=f"import sys; sys.modules['tyro'] = None\n{START}")
    assert done.returncode == 2
    expected = "transfer-lab prepare expected the packages of the extra lab, got none of them"
    assert done.stderr == f"error: {expected}; install 'transfer-lab[lab]'\n"


def test_version_is_that_of_pyproject_or_of_the_installed_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.configs import entry_points

    def not_installed(name: str) -> str:
        raise entry_points.PackageNotFoundError(name)

    monkeypatch.setattr(entry_points, "version", lambda name: f"9.9 of {name}")
    assert project_version() == "9.9 of transfer-lab"
    monkeypatch.setattr(entry_points, "version", not_installed)
    assert f'version = "{project_version()}"' in (ROOT / "pyproject.toml").read_text()
