"""Versions of a registered model: `@challenger` is the newest, `@champion` the trusted one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import onnx
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from tl_core.errors import InputError

CHAMPION, CHALLENGER = "champion", "challenger"

_REQUIREMENTS = ["mlflow", "onnx", "onnxruntime", "numpy"]


@dataclass(frozen=True)
class NewVersion:
    """What goes into a version: the file, where it came from, and the words about it."""

    onnx_path: Path
    description: str
    tags: Mapping[str, str]


def champion_of(name: str) -> ModelVersion | None:
    """The champion, or None if the model is not registered or has none; any other trouble is raised."""
    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def register_challenger(name: str, new: NewVersion) -> ModelVersion:
    """Log the .onnx file as an MLflow model of the active run and register it as `@challenger`.

    Raises:
        InputError: MLflow does not accept the name.
    """
    model = onnx.load(new.onnx_path)
    info = mlflow.onnx.log_model(
        model,
        name="classifier",
        signature=_signature(model),
        pip_requirements=_REQUIREMENTS,
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise InputError(f"no model can be registered as {name!r} ({error.message})") from error
    run = mlflow.active_run()
    assert run is not None
    version = client.create_model_version(
        name, info.model_uri, run_id=run.info.run_id, description=new.description, tags=dict(new.tags)
    )
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def resolve_onnx(model: str) -> Path:
    """The .onnx file that a path or a `models:/` URI names.

    Raises:
        InputError: no such registered model, version or alias.
    """
    if not model.startswith("models:"):
        return Path(model)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(model))
    except (MlflowException, OSError) as error:
        raise InputError(f"no registered model {model} in {mlflow.get_tracking_uri()} ({error})") from error
    files = sorted(folder.glob("*.onnx"))
    if len(files) != 1:
        raise InputError(f"{model} holds {len(files)} .onnx files; exactly one is expected")
    return files[0]


def promote(name: str, version: str) -> None:
    """Make a version the champion."""
    mlflow.MlflowClient().set_registered_model_alias(name, CHAMPION, version)


def _signature(model: onnx.ModelProto) -> ModelSignature:
    import numpy as np

    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    n_classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    images = TensorSpec(np.dtype(np.uint8), (-1, size, size, 3), "images")
    probabilities = TensorSpec(np.dtype(np.float32), (-1, n_classes), "probabilities")
    return ModelSignature(Schema([images]), Schema([probabilities]))
