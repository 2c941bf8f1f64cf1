"""The model that MLflow loads for a registered version: it takes images as bytes, base64 or paths.

Its folder holds `data/classifier.onnx`, the exported file as it is, and a copy of the few modules that run it.
Nothing is pickled, and torch is not needed.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from numpy.typing import NDArray

from serving.batch import DEFAULT_BATCH_SIZE, rank_classes
from serving.model import OnnxClassifier
from tl_core.errors import InputError
from tl_core.images.decoding import IMAGE_KINDS, UnreadableImageError, decode_image
from tl_core.images.files import read_image_file

DEFAULT_TOP_K = 5


class ImageModel:
    """Images to labels, as MLflow's generic model."""

    def __init__(self, model: OnnxClassifier) -> None:
        self._model = model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Predict the images in the first column, or in a list.

        Args:
            model_input: of each image its bytes, its base64 text, or its path.
            params: `top_k`, the number of classes to list; `abstain`, whether the label is empty below the probability
                that the file recommends.

        Returns:
            One row per image: `label`, `probability`, `unlike`, whether it looks like none of the classes (None where
            the file has no threshold for it), and `top`, a list of label and probability by rank.

        Raises:
            MlflowException: an image cannot be read; the server answers with 400 and the reason.
        """
        images = _as_list(model_input)
        top_k = int((params or {}).get("top_k", DEFAULT_TOP_K))
        if top_k < 1:
            raise MlflowException(f"top_k is {top_k}; it must be at least 1", error_code=BAD_REQUEST)
        least = self._least_probability(bool((params or {}).get("abstain", False)))
        rows = []
        for start in range(0, len(images), DEFAULT_BATCH_SIZE):
            batch = [self._decode(start + i, image) for i, image in enumerate(images[start:][:DEFAULT_BATCH_SIZE])]
            probabilities, similarities = self._model.predict_with_similarity(np.stack(batch))
            unlike = self._model.look_unlike(similarities, len(batch))
            rows += [self._row(*answer, top_k) for answer in zip(probabilities, unlike, strict=True)]
        for row in rows:
            row["label"] = row["label"] if row["probability"] >= least else ""
        return pd.DataFrame(rows, columns=["label", "probability", "unlike", "top"])

    def _least_probability(self, abstain: bool) -> float:
        try:
            return self._model.recommended_probability if abstain else 0.0
        except InputError as error:
            raise MlflowException(str(error), error_code=BAD_REQUEST) from error

    def _decode(self, position: int, image: Any) -> NDArray[np.uint8]:
        try:
            return decode_image(_as_bytes(image), self._model.image_size, self._model.resize_rule)
        except (UnreadableImageError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise MlflowException(
                f"image {position} cannot be read ({reason}); needed are the bytes of a {IMAGE_KINDS} image, "
                "their base64 text, or a path",
                error_code=BAD_REQUEST,
            ) from error

    def _row(self, probabilities: NDArray[np.float32], unlike: bool | None, top_k: int) -> dict[str, Any]:
        ranked = rank_classes(probabilities, self._model.class_names, top_k)
        top = [{"label": name, "probability": probability} for name, probability in ranked]
        return {**top[0], "unlike": unlike, "top": top}


def _load_pyfunc(data_path: str) -> ImageModel:
    # MLflow's name for the function that it calls.
    return ImageModel(OnnxClassifier.load(Path(data_path)))


def _as_list(model_input: Any) -> Sequence[Any]:
    if isinstance(model_input, pd.DataFrame):
        return list(model_input.iloc[:, 0])
    if isinstance(model_input, str | bytes):
        return [model_input]
    if isinstance(model_input, Mapping):
        return _as_list(next(iter(model_input.values())))
    return list(np.asarray(model_input, dtype=object).ravel())


def _as_bytes(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if not isinstance(image, str):
        raise UnreadableImageError(f"got {type(image).__name__}")
    if os.path.isfile(image):  # noqa: PTH113 - unlike Path's, false for a text that is too long for a name
        return read_image_file(Path(image))
    try:
        return base64.b64decode(image.rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImageError("neither base64 nor the path of a file") from error
