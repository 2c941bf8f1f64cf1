"""Nearest labelled images: what a classifier that was mistaken, or that doubts a label, may have gone by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_core.data.dataset import ImageDataset
from tl_core.data.splits import Indices


class Neighbours:
    """Labelled images of a data set with their features.

    Args:
        rows: of the images, int64 (n,).
        features: float32 (n, n_features); they are compared by the cosine from their mean.
    """

    def __init__(self, dataset: ImageDataset, rows: Indices, features: NDArray[np.float32]) -> None:
        self._labels, self._groups = dataset.labels[rows], dataset.near_duplicates[rows]
        self._rows = rows
        centred = features - features.mean(0)
        self._unit = centred / np.maximum(1e-12, np.linalg.norm(centred, axis=1, keepdims=True))

    def find(self, row: int, label: int) -> int | None:
        """Return the row of the nearest image of a class to one of the images, None where there is no other.

        The image itself, or a copy of it under another label, would say nothing.
        """
        at = int(np.flatnonzero(self._rows == row)[0])
        others = (self._labels == label) & (self._groups != self._groups[at])
        if not others.any():
            return None
        similarity = self._unit @ self._unit[at]
        return int(self._rows[np.where(others, similarity, -np.inf).argmax()])


NeighboursOf = Callable[[int], Neighbours]
"""From the position of a prediction to the labelled images that its classifier learned from, the image among them."""


def features_in_file(path: Path, images: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float32] | None:
    """Features of images by which a file compares them with the means of its classes.

    Args:
        images: uint8 (n, s, s, 3).

    Returns:
        float32 (n, n_features), or None where the file has no such comparison.
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    makers = {output: node for node in model.graph.node for output in node.output}
    compared = makers.get(makers["similarity"].input[0]) if "similarity" in makers else None
    if compared is None or compared.op_type != "MatMul":
        return None
    name = compared.input[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    starts = range(0, len(images), batch_size)
    return np.concatenate([session.run([name], {"images": images[at : at + batch_size]})[0] for at in starts])
