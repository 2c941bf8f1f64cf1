"""One exported file: the right answer for any number of pictures, and a sentence for every file that is not one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from serving.model import OnnxClassifier
from tests.conftest import COLOURS
from tests.serving.conftest import CLASS_NAMES, IMAGE_SIZE, METADATA, write_model
from tl_core.errors import InputError


@pytest.fixture
def model(model_file: Path) -> OnnxClassifier:
    """The loaded model."""
    return OnnxClassifier.load(model_file)


def noisy(names: Sequence[str], seed: int = 0) -> NDArray[np.uint8]:
    """One noisy picture of each of these colours."""
    colours = np.array([COLOURS[name] for name in names], dtype=np.float64).reshape(-1, 1, 1, 3)
    noise = np.random.default_rng(seed).normal(0, 25, (len(names), IMAGE_SIZE, IMAGE_SIZE, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def refused(path: Path) -> str:
    """The one sentence with which a model file is refused."""
    with pytest.raises(InputError) as raised:
        OnnxClassifier.load(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_file_says_what_it_is(model: OnnxClassifier) -> None:
    assert (model.class_names, model.image_size, model.resize_rule) == (CLASS_NAMES, IMAGE_SIZE, "crop")


def test_the_colour_is_the_class(model: OnnxClassifier) -> None:
    names = ["blue", "red", "green", "red"]
    probabilities = model.predict(noisy(names))
    assert [CLASS_NAMES[label] for label in probabilities.argmax(1)] == names


def test_the_answer_is_the_softmax_of_the_mean_colour(model: OnnxClassifier) -> None:
    images = noisy(["red", "blue"])
    scores = np.exp(images.mean(axis=(1, 2)) / 50)
    np.testing.assert_allclose(model.predict(images), scores / scores.sum(1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 33])
def test_any_number_of_pictures_gives_float32_probabilities(n: int, model: OnnxClassifier) -> None:
    probabilities = model.predict(noisy(["red"] * n))
    assert probabilities.shape == (n, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 33])
def test_the_size_of_the_batch_does_not_change_the_answer(n: int, model: OnnxClassifier) -> None:
    images = noisy(["red", "green", "blue"] * 11)
    parts = [model.predict(images[start : start + n]) for start in range(0, len(images), n)]
    np.testing.assert_allclose(np.concatenate(parts), model.predict(images), atol=1e-6)


def test_no_pictures_give_no_rows(model: OnnxClassifier) -> None:
    probabilities = model.predict(noisy([]))
    assert probabilities.shape == (0, 3)
    assert probabilities.dtype == np.float32


def test_asked_twice_the_answer_is_the_same(model: OnnxClassifier, model_file: Path) -> None:
    images = noisy(["red", "green", "blue"])
    first = model.predict(images)
    np.testing.assert_array_equal(model.predict(images), first)
    np.testing.assert_array_equal(OnnxClassifier.load(model_file).predict(images), first)


def test_the_number_of_threads_does_not_change_the_answer(model: OnnxClassifier, model_file: Path) -> None:
    images = noisy(["red", "green", "blue"])
    single = OnnxClassifier.load(model_file, n_threads=1)
    np.testing.assert_allclose(single.predict(images), model.predict(images), atol=1e-6)


def test_pictures_need_not_lie_in_one_piece(model: OnnxClassifier) -> None:
    images = noisy(["red", "green", "blue"])
    np.testing.assert_array_equal(model.predict(images[::-1]), model.predict(images)[::-1])


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int8, np.bool_])
def test_another_dtype_is_refused_with_both(dtype: type, model: OnnxClassifier) -> None:
    with pytest.raises(
        InputError, match=rf"expected images as uint8 \(n, 16, 16, 3\), got {np.dtype(dtype)} \(1, 16, 16, 3\)"
    ):
        model.predict(np.zeros((1, 16, 16, 3), dtype=dtype))


@pytest.mark.parametrize(
    "shape",
    [(16, 16, 3), (1, 15, 16, 3), (1, 16, 17, 3), (1, 3, 16, 16), (1, 16, 16, 4), (1, 16, 16), (0,), (0, 8, 8, 3)],
)
def test_another_shape_is_refused_with_both(shape: tuple[int, ...], model: OnnxClassifier) -> None:
    with pytest.raises(InputError) as raised:
        model.predict(np.zeros(shape, dtype=np.uint8))
    assert str(raised.value) == f"expected images as uint8 (n, 16, 16, 3), got uint8 {shape}"


@pytest.mark.parametrize("n", [0, 1, 2, 33])
def test_the_similarity_is_the_second_output(n: int, wary: OnnxClassifier) -> None:
    images = noisy(["red"] * n)
    probabilities, similarity = wary.predict_with_similarity(images)
    np.testing.assert_array_equal(probabilities, wary.predict(images))
    assert similarity is not None
    assert similarity.dtype == np.float32
    np.testing.assert_allclose(similarity, images.mean(axis=(1, 2)).max(1) / 255 if n else [], rtol=1e-5)


@pytest.mark.parametrize("n", [0, 2])
def test_a_file_with_one_output_has_no_similarity_and_marks_nothing(n: int, model: OnnxClassifier) -> None:
    similarity = model.predict_with_similarity(noisy(["red"] * n))[1]
    assert similarity is None
    assert model.look_unlike(similarity, n) == [None] * n


def test_below_the_threshold_an_image_is_unlike_and_at_it_not(wary: OnnxClassifier) -> None:
    assert wary.unlike_below == 0.5
    similarities = np.array([0.49, 0.5, 0.9, np.nan], dtype=np.float32)
    assert wary.look_unlike(similarities, 4) == [True, False, False, True]


def test_a_similarity_without_threshold_marks_nothing(tmp_path: Path) -> None:
    model = OnnxClassifier.load(write_model(tmp_path / "m.onnx", METADATA, second="similarity"))
    similarity = model.predict_with_similarity(noisy(["red"]))[1]
    assert similarity is not None
    assert model.look_unlike(similarity, 1) == [None]


def test_a_threshold_without_similarity_is_of_no_use(tmp_path: Path) -> None:
    model = OnnxClassifier.load(write_model(tmp_path / "m.onnx", METADATA | {"unlike_below": "0.5"}))
    assert (model.has_similarity, model.unlike_below) == (False, None)


@pytest.mark.parametrize("text", ["", "low", "nan", "inf", "1.01", "-2", "0.5\n0.6", "[0.5]"])
def test_a_threshold_without_sense_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", METADATA | {"unlike_below": text}, second="similarity")
    assert f"has damaged metadata (expected unlike_below from -1 to 1, got {text!r})" in refused(path)


def test_another_second_output_is_refused(tmp_path: Path) -> None:
    assert "got [('depth', 'tensor(float)', 1)]" in refused(write_model(tmp_path / "m.onnx", METADATA, second="depth"))


@pytest.mark.parametrize("key", ["class_names", "image_size", "resize_rule"])
def test_missing_metadata_is_named(key: str, tmp_path: Path) -> None:
    others = {name: value for name, value in METADATA.items() if name != key}
    assert refused(write_model(tmp_path / "m.onnx", others)).endswith(f"its metadata lacks {key}")


def test_a_foreign_onnx_file_is_refused_with_all_that_it_lacks(tmp_path: Path) -> None:
    message = refused(write_model(tmp_path / "m.onnx", {"author": "somebody else"}))
    assert "was not written by this project: its metadata lacks class_names, image_size, resize_rule" in message


@pytest.mark.parametrize(
    "damage",
    [
        {"class_names": "red, green, blue"},
        {"class_names": "5"},
        {"class_names": "null"},
        {"class_names": '"red"'},
        {"image_size": "large"},
        {"image_size": ""},
    ],
    ids=str,
)
def test_damaged_metadata_is_refused(damage: dict[str, str], tmp_path: Path) -> None:
    assert "has damaged metadata" in refused(write_model(tmp_path / "m.onnx", METADATA | damage))


@pytest.mark.parametrize(
    "damage",
    [
        {"class_names": json.dumps(["red", "green"])},
        {"class_names": json.dumps(["red", "green", "blue", "grey"])},
        {"image_size": "32"},
        {"image_size": "-16"},
    ],
    ids=str,
)
def test_metadata_that_contradicts_the_graph_is_refused(damage: dict[str, str], tmp_path: Path) -> None:
    assert "has damaged metadata" in refused(write_model(tmp_path / "m.onnx", METADATA | damage))


def test_a_graph_that_takes_other_numbers_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", METADATA, TensorProto.FLOAT)
    assert "expected an input tensor(uint8) 'images', got tensor(float) 'images'" in refused(path)


def test_an_unknown_resize_rule_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    message = refused(write_model(tmp_path / "m.onnx", METADATA | {"resize_rule": "fit"}))
    assert "expected a resize rule of crop, stretch, got 'fit'" in message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(share: float, model_file: Path) -> None:
    model_file.write_bytes(model_file.read_bytes()[: int(share * model_file.stat().st_size)])
    message = refused(model_file)
    assert "is not a readable ONNX model" in message or "its metadata lacks" in message


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("this is no model")
    assert "is not a readable ONNX model" in refused(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["missing.onnx", "x" * 300 + ".onnx", "."])
def test_a_missing_file_or_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    assert "no model file at" in refused(tmp_path / name)


@pytest.mark.parametrize("name", [b"images", b"\x01n"])
def test_a_damaged_name_of_the_input_or_its_dimension_is_one_sentence(name: bytes, model_file: Path) -> None:
    content = model_file.read_bytes()
    assert name in content
    model_file.write_bytes(content.replace(name, name[:-1] + b"\x80"))
    assert "is not a readable ONNX model" in refused(model_file)
