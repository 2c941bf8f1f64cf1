"""Serving needs onnxruntime, numpy and Pillow, nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert library == {"tl_core", "tl_core.errors", "tl_core.image_files", "tl_core.preprocess"}


def test_serving_imports_what_it_says(imported: set[str]) -> None:
    assert {"onnxruntime", "numpy", "PIL"} <= imported
