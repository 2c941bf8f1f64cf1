"""Architectures that differ in kind survive the export: not one of them may answer otherwise than torch does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.export_zoo import ZOO, draw_parts, solve_classifier, train_backbone
from tests.conftest import write_colour_images
from tl_core.data.dataset import load_dataset
from tl_core.export.onnx_file import check_parity, export_onnx
from tl_core.networks.backbones import BackboneSpec, build_backbone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("architecture", ZOO)
def test_torch_and_the_file_give_the_same_answers(architecture: str, tmp_path: Path) -> None:
    spec = BackboneSpec(architecture, ZOO[architecture])
    data = load_dataset(str(write_colour_images(tmp_path / "data", n_per_class=19)), spec.image_size)
    parts = draw_parts(data, n_train=24, n_compared=33)
    backbone = train_backbone(build_backbone(spec, seed=0), spec, data, parts.trained)
    classifier = solve_classifier(backbone, spec, data, parts.trained)
    metadata = {
        "class_names": json.dumps(list(data.class_names)),
        "image_size": str(spec.image_size),
        "resize_rule": "crop",
    }
    export_onnx(classifier, spec.image_size, metadata, tmp_path / "m.onnx")
    parity = check_parity(classifier, tmp_path / "m.onnx", np.asarray(data.images[parts.compared]))
    assert parity.holds, parity
    assert parity.max_difference > 0
