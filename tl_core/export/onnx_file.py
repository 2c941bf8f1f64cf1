"""One .onnx file that needs nothing else: uint8 pictures in, probabilities out, and all it must say of itself inside.

Scaling, normalisation, temperature and softmax are in the graph, and of a classifier with class means a second output:
the similarity of each image to the nearest of them. Class names, input size and the resize rule ride in the file's
metadata. An exporter may be wrong without saying so, hence the parity check against torch on real images.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.heads.classifier import Classifier

if TYPE_CHECKING:
    import onnx

OPSET = 20
PARITY_BATCHES = (1, 2, 33)
PARITY_TOLERANCE = 1e-4


class _Probabilities(nn.Module):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.classifier.class_means is None:
            return torch.softmax(self.classifier(images), dim=1)
        logits, similarity = self.classifier.forward_with_similarity(images)
        return torch.softmax(logits, dim=1), similarity


@dataclass(frozen=True)
class Parity:
    """Parity of the exported file with torch on the same images.

    Attributes:
        max_difference: largest absolute difference of a probability, over all batch sizes.
        equal_argmax: share of images with the same predicted class, over all batch sizes.
        n_images: images compared.
        worst: position of the image that is furthest apart; one with another class before all others.
        similarity_difference: largest absolute difference of a similarity; 0 where there is none, infinite where only
            torch or only the file has one.
    """

    max_difference: float
    equal_argmax: float
    n_images: int
    worst: int = 0
    similarity_difference: float = 0.0

    @property
    def holds(self) -> bool:
        """True if the file predicts as torch does."""
        near = self.max_difference <= PARITY_TOLERANCE and self.similarity_difference <= PARITY_TOLERANCE
        return near and self.equal_argmax == 1.0


def export_onnx(classifier: Classifier, image_size: int, metadata: Mapping[str, str], path: Path) -> None:
    """Write the classifier as one ONNX file: `images` uint8 (n, s, s, 3) to `probabilities` float32 (n, n_classes).

    If the classifier has class means, a second output is `similarity`, float32 (n,).

    Args:
        metadata: strings stored in the file, beside its opset; `class_names` must be a JSON list.
    """
    import onnx

    json.loads(metadata["class_names"])
    has_similarity = classifier.class_means is not None
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _Probabilities(classifier.eval()),
            (example,),
            input_names=["images"],
            output_names=["probabilities", "similarity"][: 1 + has_similarity],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _drop_traces(model)
    onnx.helper.set_model_props(model, {**metadata, "opset": str(OPSET)})
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path)


def _drop_traces(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of the code: half of it are paths of this machine, which are nobody's business."""
    graph = model.graph
    functions = [node for function in model.functions for node in function.node]
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in (graph, *graph.node, *values, *model.functions, *functions):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def check_parity(
    classifier: Classifier,
    path: Path,
    images: NDArray[np.uint8],
    batch_sizes: Sequence[int] = PARITY_BATCHES,
    served: NDArray[np.uint8] | None = None,
) -> Parity:
    """Compare torch with onnxruntime on real images, at several batch sizes.

    Args:
        images: uint8 (n, s, s, 3), what torch is given.
        served: what serving decodes of the same files, and onnxruntime is given; by default `images`.
    """
    import onnxruntime

    if len(images) == 0:
        raise InputError("parity cannot be checked without images; give at least one")
    served = images if served is None else served
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = np.zeros((2, len(images)))  # of probabilities, of similarities
    equal = np.ones((len(batch_sizes), len(images)), dtype=bool)
    probabilities = _Probabilities(classifier)
    for row, size in enumerate(batch_sizes):
        for start in range(0, len(images), size):
            batch = slice(start, start + size)
            expected, actual = _run_torch(probabilities, images[batch]), session.run(None, {"images": served[batch]})
            # np.maximum, unlike Python's max, lets no NaN get lost.
            differences[:, batch] = np.maximum(differences[:, batch], _differences(expected, actual))
            equal[row, batch] = expected[0].argmax(1) == actual[0].argmax(1)
    apart = np.where(equal.all(0), np.nan_to_num(differences, nan=np.inf).max(0), np.inf)
    probability, similarity = (float(largest) for largest in differences.max(1))
    return Parity(probability, float(equal.mean()), len(images), int(apart.argmax()), similarity)


Outputs = Sequence[NDArray[np.float32]]


@torch.inference_mode()
def _run_torch(probabilities: nn.Module, images: NDArray[np.uint8]) -> Outputs:
    found = probabilities(torch.from_numpy(images))
    return [output.numpy() for output in (found if isinstance(found, tuple) else (found,))]


def _differences(expected: Outputs, actual: Outputs) -> NDArray[np.float64]:
    """Largest difference of a probability, and that of the similarity, of each image: (2, n)."""
    of_probabilities = np.abs(expected[0] - actual[0]).max(1)
    if len(expected) != len(actual):
        return np.stack([of_probabilities, np.full_like(of_probabilities, np.inf)])
    of_similarity = np.abs(expected[1] - actual[1]) if len(expected) == 2 else np.zeros_like(of_probabilities)
    return np.stack([of_probabilities, of_similarity])
