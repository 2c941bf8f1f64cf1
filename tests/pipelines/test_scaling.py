"""The example of docs/scaling.md: a registered version on Ray Data gives the answers of serving."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipelines.configs.fields import ROOT
from serving.batch import Options, predict_batches
from serving.model import OnnxClassifier
from serving.sources import open_source
from tests.registry.conftest import NAME, register_colours
from tests.serving.conftest import below
from tests.tl_core.compute.test_engines import needs_ray


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from tests.conftest import write_colour_images

    return write_colour_images(tmp_path / "pictures", n_per_class=6)


@pytest.mark.cluster
@pytest.mark.timeout(600)
@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_many_machines_give_the_answers_of_serving(
    store: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a new experiment keeps its artifacts here
    register_colours(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)
    names = {"FOLDER": str(pictures), "MODEL": f"models:/{NAME}@challenger", "OUTPUT": str(tmp_path / "answers")}
    start = f"import ray\nray.init('local', num_cpus=3, include_dashboard=False, log_to_driver=False)\n{names=}\n"
    globals_ = "globals().update(names)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", start + globals_ + snippet], env=environment, cwd=tmp_path, check=True)
    found = pd.read_parquet(tmp_path / "answers").set_index("file")
    assert sorted(found.index) == below(pictures)
    with open_source(str(pictures)) as source:
        model = OnnxClassifier.load(tmp_path / "classifier.onnx", n_threads=1)
        (expected,) = predict_batches(model, [list(source.files())], Options())
    for row in expected:
        assert found.loc[row.file, "label"] == row.label
        assert found.loc[row.file, "probability"] == pytest.approx(row.top[0][1], abs=1e-6)
