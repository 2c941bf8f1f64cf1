"""Files of a version: the exported file as it is, the code that runs it, and MLflow's description of both.

One version serves two readers: `mlflow.pyfunc` (images in, labels out; also `mlflow models serve`) and `mlflow.onnx`
(the graph). This module has the form of an MLflow flavour, so that `Model.log` takes it.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Object, Property

from registry.pyfunc import DEFAULT_TOP_K

ONNX_FILE = "classifier.onnx"

_ROOT = Path(__file__).resolve().parents[1]
_CODE = ("serving/*.py", "registry/__init__.py", "registry/pyfunc.py")
_LIBRARY_CODE = ("tl_core/__init__.py", "tl_core/errors.py", "tl_core/images/**/*.py")
_PACKAGES = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas", "pillow")


def save_model(path: str, mlflow_model: Model, onnx_path: Path) -> None:
    """Write an exported file as an MLflow model into a new folder; `Model.log` calls this."""
    import onnx

    mlflow_model.add_flavor(
        "onnx", onnx_version=onnx.__version__, data=f"data/{ONNX_FILE}", providers=["CPUExecutionProvider"]
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, ONNX_FILE)
        shutil.copyfile(onnx_path, data)
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=mlflow_model,
            loader_module="registry.pyfunc",
            data_path=str(data),
            code_paths=_copy_code(Path(folder, "code")),
            signature=_signature(),
            pip_requirements=[f"{name}=={version(name)}" for name in _PACKAGES],
        )


def _copy_code(folder: Path) -> list[str]:
    for pattern in (*_CODE, *_LIBRARY_CODE):
        for file in _ROOT.glob(pattern):
            target = folder / file.relative_to(_ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return [str(package) for package in sorted(folder.iterdir())]


def _signature() -> ModelSignature:
    # MLflow passes whatever is in a text column on as it is: bytes too.
    rank = Object([Property("label", DataType.string), Property("probability", DataType.double)])
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability"),
        ColSpec(DataType.boolean, "unlike", required=False),  # None where the file has no threshold
        ColSpec(Array(rank), "top"),
    ]
    params = ParamSchema(
        [ParamSpec("top_k", DataType.integer, DEFAULT_TOP_K), ParamSpec("abstain", DataType.boolean, default=False)]
    )
    return ModelSignature(Schema([ColSpec(DataType.string)]), Schema(outputs), params)
