"""A registered model whose answer is known: the brightest channel, on a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from registry.versions import NewVersion, register_challenger
from tests.serving.conftest import METADATA, write_model

NAME = "colours"


def register_colours(folder: Path, wary: bool = False, **tags: str) -> ModelVersion:
    """Register the model of the brightest channel in a run of its own; a wary one marks dark pictures as unlike."""
    import mlflow

    path = folder / "classifier.onnx"
    if wary:
        write_model(path, METADATA | {"unlike_below": "0.5"}, second="similarity")
    else:
        write_model(path, METADATA)
    with mlflow.start_run():
        return register_challenger(NAME, NewVersion(path, "card of version {}".format, tags))


@pytest.fixture
def version(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    """A registered version on a store of its own."""
    monkeypatch.chdir(tmp_path)  # a new experiment keeps its artifacts here
    return register_colours(tmp_path, accuracy="0.9")
