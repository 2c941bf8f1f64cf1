"""Does every backbone survive the export? One line per architecture, on the same real images.

    python -m benchmarks.export_zoo --data EuroSAT.zip          (the embedded digits without it)

Every network is trained: in a few steps on labelled images, or somewhere else (`--weights resnet10_fine=FILE`). Its
head is then solved on those images. The file is compared with torch on others, from image files to probabilities, at
batch 1, 2 and 33; with `--int8`, its 8-bit variant with itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.inputs.artifacts import N_SAMPLES
from serving.model import OnnxClassifier
from serving.sources import open_source
from tl_core.data.dataset import ImageDataset, copy_files, load_dataset
from tl_core.data.splits import ClassSplit, Indices
from tl_core.export.int8 import equal_answers, quantise_onnx
from tl_core.export.onnx_file import check_parity, export_onnx
from tl_core.fewshot.finetuner import Finetuner
from tl_core.heads.classifier import Classifier
from tl_core.images.decoding import decode_image
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.networks.weights import load_weights
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.recipes.train import TrainRecipe
from tl_core.training.staged import Training

ZOO = {
    "resnet9": 64,
    "resnet10_small": 32,
    "resnet10_fine": 64,
    "resnet18": 64,
    "resnet34": 64,
    "resnet50": 64,
    "vgg16": 64,
    "inception_v3": 96,
    "legacy_xception": 96,
    "vit_tiny_patch16_224": 64,
    "convnext_atto": 64,
    "mobilenetv3_small_100": 64,
    "tf_efficientnet_lite0": 64,
    "swin_tiny_patch4_window7_224": 224,
}
BATCH = 8


@dataclass(frozen=True)
class Parts:
    """Rows of a dataset: those that a network is trained on, and those that it is compared on."""

    trained: Indices
    compared: Indices


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits:target", help="data spec: labelled images")
    parser.add_argument("--n-images", type=int, default=500, help="images to compare on")
    parser.add_argument("--n-train", type=int, default=160, help="images to train on")
    parser.add_argument("--weights", action="append", default=[], help="ARCHITECTURE=FILE")
    parser.add_argument("--backbones", nargs="+", default=list(ZOO))
    parser.add_argument("--int8", action="store_true", help="whether to make the 8-bit variant too")
    options = parser.parse_args()
    weights = dict(given.split("=", 1) for given in options.weights)
    columns = ["backbone", "px", "weights", "accuracy", "export, s", "MB", "largest difference", "equal classes"]
    columns += ["int8 MB", "int8 equal classes"] if options.int8 else []
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for architecture in options.backbones:
        spec = BackboneSpec(architecture, ZOO.get(architecture, 64))
        data = load_dataset(options.data, spec.image_size)
        parts = draw_parts(data, options.n_train, options.n_images)
        cells = _cells(spec, weights.get(architecture, ""), data, parts, options.int8)
        print(f"| {' | '.join(cells)} |", flush=True)


def draw_parts(data: ImageDataset, n_train: int, n_compared: int) -> Parts:
    """Draw as many rows for training and for comparing, of all classes alike."""
    rows = np.random.default_rng(0).permutation(len(data.labels))
    return Parts(np.sort(rows[:n_train]), np.sort(rows[n_train:][:n_compared]))


def _cells(spec: BackboneSpec, weights: str, data: ImageDataset, parts: Parts, int8: bool) -> list[str]:
    if weights:
        backbone, spec = load_weights(weights, spec.architecture, spec.image_size)
        origin = "a file"
    else:
        backbone = train_backbone(build_backbone(spec, seed=0), spec, data, parts.trained)
        origin = f"{len(parts.trained) // BATCH} steps"
    classifier = solve_classifier(backbone, spec, data, parts.trained)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "classifier.onnx")
        started = time.perf_counter()
        export_onnx(classifier, spec.image_size, _metadata(data), path)
        seconds = time.perf_counter() - started
        images = np.asarray(data.images[parts.compared])
        parity = check_parity(classifier, path, images, served=_served(data, parts.compared, Path(folder)))
        accuracy = _accuracy(path, images, data.labels[parts.compared])
        cells = [spec.architecture, f"{spec.image_size}", origin, f"{accuracy:.1%}", f"{seconds:.1f}", _megabytes(path)]
        cells += [f"{parity.max_difference:.1e}", f"{parity.equal_argmax:.2%}"]
        if int8:
            small = Path(folder, "int8.onnx")
            quantise_onnx(path, np.asarray(data.images[parts.trained[:N_SAMPLES]]), small)
            cells += [_megabytes(small), f"{equal_answers(path, small, images):.2%}"]
    return cells


def _metadata(data: ImageDataset) -> dict[str, str]:
    names = json.dumps(list(data.class_names))
    return {"class_names": names, "image_size": str(data.image_size), "resize_rule": "crop"}


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f}"


def train_backbone(backbone: nn.Module, spec: BackboneSpec, data: ImageDataset, rows: Indices) -> nn.Module:
    """Move every weight of a network, and its statistics, by one epoch of steps on these rows."""
    recipe = TrainRecipe(epochs="1", freeze_depth="0", max_lr="3e-4", batch_size=BATCH)
    split = ClassSplit(rows, rows[:BATCH], rows[:BATCH])
    for _ in Training(backbone, spec, data, split, recipe, seed=0, device=torch.device("cpu")).epochs(0):
        pass
    return backbone.eval()


def solve_classifier(backbone: nn.Module, spec: BackboneSpec, data: ImageDataset, rows: Indices) -> Classifier:
    """The network with the linear head that suits its features of these rows."""
    finetuner = Finetuner(backbone, spec, data, torch.device("cpu"))
    return finetuner.fit_classifier(rows, FinetuneRecipe(freeze_depth=1.0), seed=0)


def _served(data: ImageDataset, rows: Indices, folder: Path) -> NDArray[np.uint8]:
    """What serving decodes of the same files."""
    copy_files(data.name, [data.file_names[row] for row in rows], folder / "files.zip")
    with open_source(str(folder / "files.zip")) as source:
        return np.stack([decode_image(file.read(), data.image_size) for file in source.files()])


def _accuracy(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    model = OnnxClassifier.load(path)
    answers = [model.predict(images[start : start + 33]).argmax(1) for start in range(0, len(images), 33)]
    return float((np.concatenate(answers) == labels).mean())


if __name__ == "__main__":
    main()
