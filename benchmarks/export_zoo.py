"""Does every backbone survive the export? One line per architecture, on the same real images.

    python -m benchmarks.export_zoo --images EuroSAT.zip          (made pictures without it)

Random weights, or those of a file (`--weights tf_efficientnet_lite0=FILE`), and a random head, scaled so that the
answers are spread; the file is compared with torch on decoded files at batch 1, 2 and 33.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.inference import make_pictures
from serving.model import OnnxClassifier
from serving.sources import ImageFile, open_source
from tl_core.backbones import BackboneSpec, build_backbone, n_features
from tl_core.classifier import Classifier
from tl_core.export import check_parity, export_onnx
from tl_core.preprocess import decode_image
from tl_core.weights import load_weights

ZOO = {
    "resnet10_small": 32,
    "resnet10_fine": 64,
    "resnet18": 64,
    "resnet50": 64,
    "vgg16": 64,
    "inception_v3": 96,
    "xception": 96,
    "vit_tiny_patch16_224": 64,
    "convnext_atto": 64,
    "mobilenetv3_small_100": 64,
    "tf_efficientnet_lite0": 64,
    "swin_tiny_patch4_window7_224": 224,
}
N_CLASSES = 5


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", help="folder or archive of image files; by default pictures are made")
    parser.add_argument("--n-images", type=int, default=500)
    parser.add_argument("--weights", action="append", default=[], help="ARCHITECTURE=FILE")
    parser.add_argument("--backbones", nargs="+", default=list(ZOO))
    options = parser.parse_args()
    weights = dict(given.split("=", 1) for given in options.weights)
    print("| backbone | px | export, s | MB | largest difference | equal classes | median probability |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        images = options.images or str(make_pictures(Path(folder, "pictures"), options.n_images, 64))
        with open_source(images) as source:
            files = list(source.files())
            files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[: options.n_images]]
            for architecture in options.backbones:
                print(_line(architecture, weights.get(architecture, ""), files, Path(folder)), flush=True)


def _line(architecture: str, weights: str, files: list[ImageFile], folder: Path) -> str:
    classifier, spec = _classifier(architecture, weights, files)
    path = folder / f"{architecture}.onnx"
    names = json.dumps([str(index) for index in range(N_CLASSES)])
    metadata = {"class_names": names, "image_size": str(spec.image_size), "resize_rule": "crop"}
    started = time.perf_counter()
    export_onnx(classifier, spec.image_size, metadata, path)
    seconds = time.perf_counter() - started
    images = _decoded(files, spec.image_size)
    parity = check_parity(classifier, path, images)
    confidence = np.median(OnnxClassifier.load(path).predict(images).max(1))
    size = path.stat().st_size / 1e6
    return (
        f"| {architecture} | {spec.image_size} | {seconds:.1f} | {size:.1f} | {parity.max_difference:.1e} | "
        f"{parity.equal_argmax:.2%} | {confidence:.2f} |"
    )


def _classifier(architecture: str, weights: str, files: list[ImageFile]) -> tuple[Classifier, BackboneSpec]:
    spec = BackboneSpec(architecture, ZOO.get(architecture, 64))
    if weights:
        backbone, spec = load_weights(weights, architecture, spec.image_size)
    else:
        backbone = build_backbone(spec, seed=0)
    return balanced_classifier(spec, backbone, _decoded(files[:64], spec.image_size), N_CLASSES), spec


def balanced_classifier(
    spec: BackboneSpec, backbone: nn.Module, images: NDArray[np.uint8], n_classes: int
) -> Classifier:
    """A random head that finds each class equally likely on these images, its answers neither alike nor certain."""
    torch.manual_seed(0)
    head = nn.Linear(n_features(backbone, spec), n_classes)
    classifier = Classifier(spec, backbone, head).eval()
    with torch.no_grad():
        logits = classifier(torch.from_numpy(images))
        scale = 2 / logits.std(0)
        head.weight.mul_(scale[:, None])
        head.bias.sub_(logits.mean(0)).mul_(scale)
    return classifier


def _decoded(files: list[ImageFile], image_size: int) -> NDArray[np.uint8]:
    return np.stack([decode_image(file.read(), image_size) for file in files])


if __name__ == "__main__":
    main()
