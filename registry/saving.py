"""Files of a version: the exported file as it is, the code that runs it, and MLflow's description of both.

One version serves two readers: `mlflow.pyfunc` (images in, labels out; also `mlflow models serve`) and `mlflow.onnx`
(the graph). This module has the form of an MLflow flavour, so that `Model.log` takes it.

A version is a guest in other people's processes, beside packages that may be called as ours are and versions of other
releases. Its code is therefore one package, whose name ends in the hash of what is in it.
"""

from __future__ import annotations

import hashlib
import re
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
_CODE = ("serving/*.py", "registry/__init__.py", "registry/pyfunc.py", "tl_core/errors.py", "tl_core/images/**/*.py")
_EMPTY = ("__init__.py", "tl_core/__init__.py")  # ours looks names up in modules that do not come along
_OUR_IMPORT = re.compile(r"^(\s*from )((?:registry|serving|tl_core)\b)", re.MULTILINE)
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
        package = _write_package(Path(folder))
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=mlflow_model,
            loader_module=f"{package.name}.registry.pyfunc",
            data_path=str(data),
            code_paths=[str(package)],
            signature=_signature(),
            pip_requirements=[f"{name}=={version(name)}" for name in _PACKAGES],
        )


def _write_package(folder: Path) -> Path:
    """Write the code that runs a version as one package, under a name that no other code has."""
    files = dict.fromkeys(_EMPTY, "")
    for pattern in _CODE:
        files |= {path.relative_to(_ROOT).as_posix(): path.read_text("utf-8") for path in _ROOT.glob(pattern)}
    digest = hashlib.sha256("".join(f"{name}\0{text}\0" for name, text in sorted(files.items())).encode()).hexdigest()
    package = folder / f"transfer_lab_{digest[:12]}"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_OUR_IMPORT.sub(rf"\g<1>{package.name}.\g<2>", text), "utf-8")
    return package


def _signature() -> ModelSignature:
    # Without inputs: MLflow would hand over the first column of a frame, whatever it is called.
    rank = Object([Property("label", DataType.string), Property("probability", DataType.double)])
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability", required=False),  # None where an image cannot be read
        ColSpec(DataType.boolean, "unlike", required=False),  # None where the file has no threshold
        ColSpec(Array(rank), "top"),
        ColSpec(DataType.string, "error"),
    ]
    params = ParamSchema(
        [ParamSpec("top_k", DataType.integer, DEFAULT_TOP_K), ParamSpec("abstain", DataType.boolean, default=False)]
    )
    return ModelSignature(outputs=Schema(outputs), params=params)
