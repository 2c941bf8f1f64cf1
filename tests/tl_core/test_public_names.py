"""The library's public face: names imported when they are used, and the page that shows them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import tl_core
from serving.model import OnnxClassifier
from tl_core.data.dataset import default_cache_dir

ROOT = Path(__file__).resolve().parents[2]


def test_every_public_name_is_there() -> None:
    for name in tl_core.__all__:
        assert getattr(tl_core, name).__name__ == name
    assert set(tl_core.__all__) <= set(dir(tl_core))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tl_core, "load_datasets")


def test_type_checkers_see_the_names_that_are_imported_at_run_time() -> None:
    tree = ast.parse(Path(str(tl_core.__file__)).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        node.module: [alias.name for alias in node.names] for node in block.body if isinstance(node, ast.ImportFrom)
    }
    assert seen == {f"tl_core.{module}": list(names) for module, names in tl_core._MODULES.items()}
    assert sorted(name for names in seen.values() for name in names) == sorted(tl_core.__all__)


@pytest.mark.parametrize("folder", [ROOT, None], ids=["checkout", "registered model"])
def test_importing_the_library_loads_none_of_its_modules(folder: Path | None, tmp_path: Path) -> None:
    if folder is None:  # a registered version's copy has this file, `errors` and `images`
        folder = tmp_path
        (tmp_path / "tl_core").mkdir()
        for name in ("__init__.py", "errors.py"):
            shutil.copy(ROOT / "tl_core" / name, tmp_path / "tl_core")
    code = "import sys, tl_core; print(*sorted(m for m in sys.modules if m.startswith(('tl_core', 'numpy', 'torch'))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tl_core"]


def test_the_code_of_the_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks[0].strip().splitlines()) <= 12
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102 - our own page
    accuracy, parity = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d\.\d\d \+- \d\.\d\d % \(n=20\)", accuracy)
    assert float(accuracy.split()[0]) > 60  # chance is 20 %
    assert parity == "True"
    model = OnnxClassifier.load(tmp_path / "classifier.onnx", n_threads=1)
    assert model.image_size == 32
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    command = [
        sys.executable,
        "-m",
        "serving",
        str(tmp_path / "classifier.onnx"),
        str(tmp_path / "photo.png"),
        "out.csv",
    ]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)


def test_the_cache_is_in_the_working_directory_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSFER_LAB_CACHE")
    monkeypatch.chdir(tmp_path)
    assert default_cache_dir() == tmp_path / ".cache"
    monkeypatch.setenv("TRANSFER_LAB_CACHE", str(tmp_path / "elsewhere"))
    assert default_cache_dir() == tmp_path / "elsewhere"
