"""Architectures that differ in kind survive the export: not one of them may answer otherwise than torch does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import write_colour_images
from tl_core.backbones import BackboneSpec, build_backbone, n_features
from tl_core.classifier import Classifier
from tl_core.datasets import load_dataset
from tl_core.export import check_parity, export_onnx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ZOO = {
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
}


@pytest.mark.parametrize("architecture", ZOO)
def test_torch_and_the_file_give_the_same_answers(architecture: str, tmp_path: Path) -> None:
    spec = BackboneSpec(architecture, ZOO[architecture])
    data = load_dataset(str(write_colour_images(tmp_path / "data", n_per_class=11)), spec.image_size)
    images = np.asarray(data.images)
    backbone = build_backbone(spec, seed=0)
    torch.manual_seed(0)
    head = nn.Linear(n_features(backbone, spec), 3)
    classifier = Classifier(spec, backbone, head).eval()
    with torch.no_grad():  # each class equally likely, and the answers neither all alike nor all certain
        logits = classifier(torch.from_numpy(images))
        scale = 2 / logits.std(0)
        head.weight.mul_(scale[:, None])
        head.bias.sub_(logits.mean(0)).mul_(scale)
    names = json.dumps(list(data.class_names))
    metadata = {"class_names": names, "image_size": str(spec.image_size), "resize_rule": "crop"}
    export_onnx(classifier, spec.image_size, metadata, tmp_path / "m.onnx")
    parity = check_parity(classifier, tmp_path / "m.onnx", images)
    assert parity.holds, parity
    assert parity.max_difference > 0
