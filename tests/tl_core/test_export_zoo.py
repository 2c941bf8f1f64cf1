"""Architectures that differ in kind survive the export: not one of them may answer otherwise than torch does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.export_zoo import ZOO, balanced_classifier
from tests.conftest import write_colour_images
from tl_core.backbones import BackboneSpec, build_backbone
from tl_core.datasets import load_dataset
from tl_core.export import check_parity, export_onnx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("architecture", ZOO)
def test_torch_and_the_file_give_the_same_answers(architecture: str, tmp_path: Path) -> None:
    spec = BackboneSpec(architecture, ZOO[architecture])
    data = load_dataset(str(write_colour_images(tmp_path / "data", n_per_class=11)), spec.image_size)
    images = np.asarray(data.images)
    classifier = balanced_classifier(spec, build_backbone(spec, seed=0), images, n_classes=3)
    names = json.dumps(list(data.class_names))
    metadata = {"class_names": names, "image_size": str(spec.image_size), "resize_rule": "crop"}
    export_onnx(classifier, spec.image_size, metadata, tmp_path / "m.onnx")
    parity = check_parity(classifier, tmp_path / "m.onnx", images)
    assert parity.holds, parity
    assert parity.max_difference > 0
