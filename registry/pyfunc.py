"""The model that MLflow loads for a registered version: it takes images as bytes, base64 or paths.

Its folder holds `data/classifier.onnx`, the exported file as it is, and a copy of the few modules that run it.
Nothing is pickled, and torch is not needed. Paths are read below one folder alone, which whoever runs the model names
in $TRANSFER_LAB_IMAGE_ROOT: who may ask for predictions may not read any file.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from numpy.typing import NDArray

from serving.batch import DEFAULT_BATCH_SIZE, rank_classes
from serving.model import OnnxClassifier
from tl_core.errors import InputError
from tl_core.images.decoding import UnreadableImageError, decode_image
from tl_core.images.files import read_image_file

DEFAULT_TOP_K = 5

IMAGE_ROOT = "TRANSFER_LAB_IMAGE_ROOT"
"""Variable with the folder below which paths are read."""

_IMAGE, _COLUMNS = "image", ["label", "probability", "unlike", "top", "error"]
_LONGEST_PATH = 4096


class ImageModel:
    """Images to labels, as MLflow's generic model."""

    def __init__(self, model: OnnxClassifier) -> None:
        self._model = model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Predict the images in the column `image`, in a single column of any name, or in a list.

        Args:
            model_input: of each image its bytes, its base64 text, or its path below $TRANSFER_LAB_IMAGE_ROOT.
            params: `top_k`, the number of classes to list; `abstain`, whether the label is empty below the probability
                that the file recommends.

        Returns:
            One row per image: `label`, `probability`, `unlike`, whether it looks like none of the classes (None where
            the file has no threshold for it), `top`, a list of label and probability by rank, and `error`, the reason
            why there is no answer.

        Raises:
            MlflowException: no column of images, or a param that cannot be; the server answers with 400 and the reason.
        """
        images = _as_list(model_input)
        top_k = int((params or {}).get("top_k", DEFAULT_TOP_K))
        if top_k < 1:
            raise MlflowException(f"top_k is {top_k}; it must be at least 1", error_code=BAD_REQUEST)
        least = self._least_probability(bool((params or {}).get("abstain", False)))
        rows: list[dict[str, Any]] = []
        for start in range(0, len(images), DEFAULT_BATCH_SIZE):
            rows += self._rows([self._decode(image) for image in images[start:][:DEFAULT_BATCH_SIZE]], top_k)
        for row in rows:
            row["label"] = row["label"] if row["error"] or row["probability"] >= least else ""
        return pd.DataFrame(rows, columns=_COLUMNS, dtype=object if any(row["error"] for row in rows) else None)

    def _rows(self, decoded: Sequence[NDArray[np.uint8] | str], top_k: int) -> list[dict[str, Any]]:
        """Answers for decoded images, and the reasons of those that could not be decoded."""
        readable = [one for one in decoded if not isinstance(one, str)]
        answers: Iterator[tuple[NDArray[np.float32], bool | None]] = iter(())
        if readable:
            probabilities, similarities = self._model.predict_with_similarity(np.stack(readable))
            answers = zip(probabilities, self._model.look_unlike(similarities, len(readable)), strict=True)
        return [
            {"label": "", "probability": None, "unlike": None, "top": [], "error": one}
            if isinstance(one, str)
            else self._row(*next(answers), top_k)
            for one in decoded
        ]

    def _least_probability(self, abstain: bool) -> float:
        try:
            return self._model.recommended_probability if abstain else 0.0
        except InputError as error:
            raise MlflowException(str(error), error_code=BAD_REQUEST) from error

    def _decode(self, image: Any) -> NDArray[np.uint8] | str:
        """Pixels of an image, or the reason why there are none."""
        try:
            return decode_image(_as_bytes(image), self._model.image_size, self._model.resize_rule)
        except UnreadableImageError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def _row(self, probabilities: NDArray[np.float32], unlike: bool | None, top_k: int) -> dict[str, Any]:
        ranked = rank_classes(probabilities, self._model.class_names, top_k)
        top = [{"label": name, "probability": probability} for name, probability in ranked]
        return {**top[0], "unlike": unlike, "top": top, "error": ""}


def _load_pyfunc(data_path: str) -> ImageModel:
    # MLflow's name for the function that it calls.
    return ImageModel(OnnxClassifier.load(Path(data_path)))


def _as_list(model_input: Any) -> Sequence[Any]:
    if isinstance(model_input, pd.DataFrame | Mapping):
        names = [str(name) for name in model_input]
        if _IMAGE not in names and len(names) != 1:
            raise MlflowException(
                f"expected a column {_IMAGE}, got {', '.join(names) or 'none'}", error_code=BAD_REQUEST
            )
        column = model_input[list(model_input)[names.index(_IMAGE) if _IMAGE in names else 0]]
        return _as_list(column)
    if isinstance(model_input, str | bytes):
        return [model_input]
    return list(np.asarray(model_input, dtype=object).ravel())


def _as_bytes(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if not isinstance(image, str):
        raise UnreadableImageError(f"expected bytes or a text, got {type(image).__name__}")
    path = _path_below_root(image)
    return read_image_file(path) if path is not None else _from_base64(image)


def _path_below_root(text: str) -> Path | None:
    """Path of a file that may be read; None for a text that names none, or one elsewhere: which exist is not told."""
    root = os.environ.get(IMAGE_ROOT)
    if not root or "\0" in text:
        return None
    try:
        path = Path(root, text).resolve()
        allowed = path.is_relative_to(Path(root).resolve()) and path.is_file()
        # The files of /proc are empty, and some of them have no end.
        return path if allowed and path.stat().st_size > 0 else None
    except OSError:  # too long for a name
        return None


def _from_base64(text: str) -> bytes:
    """Bytes of a text in either alphabet of base64, in lines or not, padded or not, as a data URI or not."""
    digits = "".join(unquote(text).rpartition("base64,")[2].split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        unset = "" if os.environ.get(IMAGE_ROOT) else ", which is not set"
        reason = f"neither base64 nor the path of an image below the folder that {IMAGE_ROOT} names{unset}"
        raise UnreadableImageError(reason) from error
