"""Serving needs onnxruntime, numpy and Pillow, nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.serving.conftest import below, read_csv

ROOT = Path(__file__).resolve().parents[2]
IMPORT_AND_LIST = "import json, sys, serving.__main__; print(json.dumps(sorted(sys.modules)))"


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Every module that the command line of serving imports."""
    command = [sys.executable, "-c", IMPORT_AND_LIST]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def test_serving_imports_nothing_of_the_training(imported: set[str]) -> None:
    heavy = {"torch", "torchvision", "timm", "mlflow", "optuna", "sklearn", "pandas", "scipy", "pyarrow", "onnx"}
    assert not imported & heavy


def test_of_the_library_serving_imports_image_files_preprocessing_and_the_error_alone(imported: set[str]) -> None:
    library = {name for name in imported if name.split(".")[0] in ("tl_core", "pipelines", "registry")}
    assert {name for name in library if not name.startswith("tl_core.images")} == {"tl_core", "tl_core.errors"}


def test_serving_imports_what_it_says(imported: set[str]) -> None:
    assert {"onnxruntime", "numpy", "PIL"} <= imported


@pytest.fixture
def only_three_packages(tmp_path: Path) -> dict[str, str]:
    """The variables of an environment in which onnxruntime, numpy and Pillow are all that is installed."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("onnxruntime", "numpy", "pillow"):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or () if file.parts[0] != ".."}:
            (packages / top).symlink_to(Path(str(installed.locate_file(top))))
    for ours in ("serving", "tl_core"):
        (packages / ours).symlink_to(ROOT / ours)
    return {"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]}


def alone(variables: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", *arguments]  # without the packages of this environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("package", ["torch", "mlflow", "pandas", "pyarrow", "filelock", "tqdm"])
def test_other_packages_are_absent_there(package: str, only_three_packages: dict[str, str], tmp_path: Path) -> None:
    done = alone(only_three_packages, tmp_path, "-c", f"import {package}")
    assert "ModuleNotFoundError" in done.stderr


def test_three_packages_are_enough(
    only_three_packages: dict[str, str], model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    command = ["-m", "serving", str(model_file), str(pictures), "out.csv", "--pictures", "album"]
    done = alone(only_three_packages, tmp_path, *command)
    assert (done.returncode, done.stderr) == (0, "")
    rows = read_csv(tmp_path / "out.csv")
    assert [row["file"] for row in rows] == below(pictures)
    assert all(Path(row["file"]).parent.name == row["label"] for row in rows)
    assert len(list((tmp_path / "album").glob("*.png"))) == 12
    assert (tmp_path / "album" / "index.html").is_file()


def test_without_pyarrow_parquet_is_one_sentence(
    only_three_packages: dict[str, str], model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    done = alone(only_three_packages, tmp_path, "-m", "serving", str(model_file), str(pictures), "out.parquet")
    assert done.returncode == 2
    assert done.stderr == "error: out.parquet needs the package pyarrow, which is not installed; csv needs nothing\n"


def test_the_contract_names_every_package_of_the_library_that_serving_must_not_see() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (forbidden,) = (of["forbidden_modules"] for of in contracts if of["name"].startswith("Of the library, serving"))
    there = {f"tl_core.{path.stem}" for path in (ROOT / "tl_core").iterdir() if path.stem[:2] != "__"}
    assert there - set(forbidden) == {"tl_core.errors", "tl_core.images"}
