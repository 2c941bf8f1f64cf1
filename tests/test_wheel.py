"""The wheel, outside the checkout: its files, its command, and the three packages of serving."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from pipelines.command_line.mlproject import locked_versions
from pipelines.command_line.reproduction_files import reproduction_names
from pipelines.configs.entry_points import ENTRY_POINTS, project_version
from pipelines.configs.fields import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

UV = Path(sys.executable).with_name("uv")
UNREACHABLE = re.compile("failed to fetch|error sending request|dns error|connection refused|timed out", re.IGNORECASE)


def uv(*arguments: str | Path, environment: Path | None = None) -> None:
    """Run uv, or skip the test where the package registry cannot be reached."""
    variables = {**os.environ, **({"VIRTUAL_ENV": str(environment)} if environment else {})}
    done = subprocess.run([UV, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip("the package registry is not reachable")
    assert done.returncode == 0, done.stderr


def run(environment: Path, folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of an environment, started in a folder, with nothing that points to the checkout."""
    variables = {name: value for name, value in os.environ.items() if not re.match("PYTHON|MLFLOW_|OPTUNA_", name)}
    command = [environment / "bin" / program, *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--quiet", "--out-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def lab(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; all other packages are those of this one."""
    environment = tmp_path_factory.mktemp("lab") / "venv"
    uv("venv", "--quiet", "--python", sys.executable, environment)
    uv("pip", "install", "--quiet", "--no-deps", wheel, environment=environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


@pytest.fixture(scope="module")
def serving(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its extra `serving`, at the lock's versions."""
    folder = tmp_path_factory.mktemp("serving")
    uv("venv", "--quiet", "--python", sys.executable, folder / "venv")
    pins = [f"{name}=={version}" for name, version in locked_versions().items()]
    (folder / "constraints.txt").write_text("\n".join(pins))
    requirement = f"transfer-lab[serving] @ {wheel.as_uri()}"
    uv("pip", "install", "--quiet", requirement, "-c", folder / "constraints.txt", environment=folder / "venv")
    return folder / "venv"


def test_it_holds_the_modules_the_template_and_the_reproductions_and_no_other_folder(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    top = {name.partition("/")[0] for name in names}
    assert top == {"pipelines", "registry", "serving", "tl_core", f"transfer_lab-{project_version()}.dist-info"}
    assert {"pipelines/reports/report.html.jinja", "serving/album.html"} <= names
    assert {f"pipelines/reproductions/{name}.toml" for name in reproduction_names()} <= names
    assert {f"pipelines/{name}.py" for name in ENTRY_POINTS} <= names


def test_the_command_lists_the_entry_points_and_the_known_systems(lab: Path, tmp_path: Path) -> None:
    listed = run(lab, tmp_path, "transfer-lab")
    named = [line for line in listed.stdout.splitlines() if line.startswith("  ") and line[2] != " "]
    names = [line.split()[0] for line in named]  # a sentence goes on below, further in
    assert names[: len(ENTRY_POINTS)] == list(ENTRY_POINTS)
    systems = run(lab, tmp_path, "transfer-lab", "reproduce").stdout
    assert all(f"  {name} " in systems for name in reproduction_names())


def test_the_version_is_that_of_the_installed_distribution(lab: Path, tmp_path: Path) -> None:
    code = "from pipelines.configs import entry_points as e; print(e.project_version(), e.__file__)"
    version, file = run(lab, tmp_path, "python", "-c", code).stdout.split()
    assert version == project_version()
    assert Path(file).is_relative_to(lab)


def test_a_finetune_in_an_empty_folder_reports_its_interval(lab: Path, tmp_path: Path) -> None:
    size = "--n_episodes 4 --n_shot 2 --n_query 3 --image_size 16 --workers 2 --freeze_depth 0.9 --steps 2"
    done = run(lab, tmp_path, "transfer-lab", "finetune", "--weights", "random", *size.split())
    assert done.returncode == 0, done.stderr
    assert re.search(r"accuracy \d+\.\d\d \+- \d+\.\d\d % \(n=4\)", done.stdout)


def test_serving_is_three_packages_and_what_they_need(serving: Path, tmp_path: Path) -> None:
    code = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    installed = set(run(serving, tmp_path, "python", "-c", code).stdout.split())
    assert {"numpy", "onnxruntime", "pillow", "transfer-lab"} <= installed
    assert not installed & {"torch", "torchvision", "timm", "mlflow", "optuna", "pandas", "scikit-learn", "scipy"}
    assert run(serving, tmp_path, "python", "-m", "serving", "--help").stdout.startswith("usage: python -m serving")


def test_what_serving_lacks_is_one_sentence(serving: Path, tmp_path: Path) -> None:
    assert run(serving, tmp_path, "transfer-lab").returncode == 0
    for program, *arguments in (["transfer-lab", "prepare"], ["python", "-m", "pipelines.prepare"]):
        done = run(serving, tmp_path, program, *arguments)
        assert done.returncode == 2
        assert re.fullmatch(r"error: .*; install 'transfer-lab\[lab\]'\n", done.stderr)
