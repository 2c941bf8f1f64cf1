"""A model file that knows its answer: the class is the colour channel that is brightest on average."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from serving.model import OnnxClassifier
from tests.conftest import write_colour_images

IMAGE_SIZE = 16
CLASS_NAMES = ("red", "green", "blue")
METADATA = {"class_names": json.dumps(CLASS_NAMES), "image_size": str(IMAGE_SIZE), "resize_rule": "crop"}


def write_model(path: Path, metadata: dict[str, str], kind: int = TensorProto.UINT8, second: str | None = None) -> Path:
    """An ONNX file of the form that `export` writes: uint8 pictures in, the softmax of their mean colour out.

    Args:
        second: name of a second output, the largest value of the mean colour over 255.
    """
    extra = [
        helper.make_node("ReduceMax", ["mean", "last"], ["brightest"], keepdims=0),
        helper.make_node("Div", ["brightest", "white"], [second or ""]),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])]
    if second:
        outputs.append(helper.make_tensor_value_info(second, TensorProto.FLOAT, ["n"]))
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        *(extra if second else []),
    ]
    constants: dict[str, np.ndarray] = {
        "axes": np.array([1, 2], dtype=np.int64),
        "scale": np.array(50, dtype=np.float32),
    }
    if second:
        constants |= {"last": np.array([1], dtype=np.int64), "white": np.array(255, dtype=np.float32)}
    graph = helper.make_graph(
        nodes,
        "mean_colour",
        [helper.make_tensor_value_info("images", kind, ["n", IMAGE_SIZE, IMAGE_SIZE, 3])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    return path


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """The model with all of its metadata."""
    return write_model(tmp_path / "model.onnx", METADATA)


@pytest.fixture
def model(model_file: Path) -> OnnxClassifier:
    """The loaded model, for several threads of one batch each."""
    return OnnxClassifier.load(model_file, n_threads=1)


@pytest.fixture
def wary_file(tmp_path: Path) -> Path:
    """The model with the brightness of the colour as similarity, and a threshold of half of it."""
    return write_model(tmp_path / "wary.onnx", METADATA | {"unlike_below": "0.5"}, second="similarity")


@pytest.fixture
def wary(wary_file: Path) -> OnnxClassifier:
    """The loaded model that marks dark pictures as unlike."""
    return OnnxClassifier.load(wary_file, n_threads=1)


@pytest.fixture
def two_dark(pictures: Path) -> Path:
    """The pictures with two dark ones among the blue, and a note."""
    for name in ("dark.png", "darker.png"):
        Image.new("RGB", (20, 20), (10, 20, 60)).save(pictures / "blue" / name)
    (pictures / "green" / "000a.jpg").write_text("no picture")
    return pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures of each colour."""
    return write_colour_images(tmp_path / "pictures", n_per_class=4)


@pytest.fixture
def two_broken(pictures: Path) -> Path:
    """The pictures with a note and half a PNG among the green ones."""
    (pictures / "green" / "000a.jpg").write_text("no picture")
    (pictures / "green" / "half.png").write_bytes((pictures / "red" / "000.png").read_bytes()[:200])
    return pictures


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a csv table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def below(folder: Path) -> list[str]:
    """The image files below a folder as a table names them."""
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]
