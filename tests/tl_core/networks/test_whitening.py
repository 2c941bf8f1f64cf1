"""Whitening by the source's within-class covariance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import empirical_covariance

from tl_core.errors import InputError
from tl_core.heads.storage import load_backbone, load_covariance, save_backbone
from tl_core.networks.backbones import BackboneSpec, build_backbone, with_features
from tl_core.networks.embedded import N_FEATURES, embedded_covariance
from tl_core.networks.weights import load_weights
from tl_core.networks.whitening import whitening, within_class_covariance

SPEC = BackboneSpec("resnet10_small", 16)


def test_the_covariance_is_that_around_the_classes_own_means() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [5, 9, 2])
    features = rng.normal(size=(16, 4)) + 10 * labels[:, None]
    centred = np.concatenate([features[labels == c] - features[labels == c].mean(0) for c in range(3)])
    expected = empirical_covariance(centred, assume_centered=True) * 16 / 13
    found = within_class_covariance(torch.from_numpy(features), torch.from_numpy(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_classes_of_one_image_tell_nothing() -> None:
    assert within_class_covariance(torch.randn(3, 4), torch.arange(3)) is None


def test_without_alpha_whitened_features_have_the_covariance_of_noise() -> None:
    mix = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
    covariance = mix @ mix.T
    matrix = whitening(covariance, alpha=0).double()
    expected = covariance.trace() / 5 * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(matrix @ covariance @ matrix, expected, rtol=1e-4, atol=1e-4)


def test_a_large_alpha_changes_nothing_but_the_size() -> None:
    matrix = whitening(torch.diag(torch.tensor([1.0, 2.0, 9.0])), alpha=1e6)
    torch.testing.assert_close(matrix * 1e3, torch.eye(3), rtol=1e-4, atol=1e-4)


def test_the_direction_that_varies_most_is_shortened_most() -> None:
    diagonal = whitening(torch.diag(torch.tensor([1.0, 2.0, 9.0]))).diagonal()
    assert diagonal.tolist() == sorted(diagonal.tolist(), reverse=True)
    # The mean variance is 4: 9 / 4 + 3 of it, to the power of -1/2.
    assert float(diagonal[2]) == pytest.approx((9 / 4 + 3) ** -0.5)


def test_whitened_features_are_the_stages_times_the_matrix() -> None:
    plain = build_backbone(SPEC, seed=0)
    stages, _ = with_features(plain, SPEC, "stages")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = stages.eval()(images)
    covariance = torch.cov(torch.randn(2 * expected.shape[1], expected.shape[1]).T)
    whitened, spec = with_features(plain, SPEC, "whitened", covariance)
    assert spec == replace(SPEC, features="whitened")
    torch.testing.assert_close(whitened.eval()(images), expected @ whitening(covariance))


def test_a_whitened_backbone_and_a_covariance_are_saved_and_loaded(tmp_path: Path) -> None:
    plain = build_backbone(SPEC, seed=0)
    width = with_features(plain, SPEC, "stages")[0](torch.zeros(1, 3, 16, 16)).shape[1]
    covariance = torch.diag(torch.arange(1.0, width + 1))
    save_backbone(plain, SPEC, tmp_path / "plain", covariance)
    found = load_covariance(tmp_path / "plain")
    assert found is not None
    assert torch.equal(found, covariance)
    whitened, spec = with_features(plain, SPEC, "whitened", covariance)
    save_backbone(whitened, spec, tmp_path / "whitened")
    loaded, loaded_spec = load_backbone(tmp_path / "whitened")
    assert loaded_spec == spec
    assert torch.equal(loaded.get_buffer("projection"), whitening(covariance))
    assert load_covariance(tmp_path / "whitened") is None


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (None, "expected weights that know how features vary .* give features=stages"),
        (torch.eye(7), r"expected a covariance of \d+ features of resnet10_small, got one of 7"),
    ],
)
def test_without_a_covariance_that_fits_nothing_is_whitened(covariance: torch.Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_features(build_backbone(SPEC, seed=0), SPEC, "whitened", covariance)


def test_a_damaged_covariance_is_refused(tmp_path: Path) -> None:
    (tmp_path / "covariance.safetensors").write_bytes(b"not this")
    with pytest.raises(InputError, match=r"covariance\.safetensors beside the weights cannot be read"):
        load_covariance(tmp_path)


def test_the_embedded_covariance_is_one_of_the_embedded_weights() -> None:
    covariance = embedded_covariance()
    assert covariance.shape == (N_FEATURES, N_FEATURES)
    assert torch.equal(covariance, covariance.T)
    assert float(covariance.trace()) == pytest.approx(N_FEATURES, rel=1e-3)
    spectrum = torch.linalg.eigvalsh(covariance.double())
    assert float(spectrum.min()) > -1e-3
    # Few directions hold most of what varies: by these whitening does something.
    assert float(spectrum[-10:].sum()) > 0.25 * N_FEATURES
    network, _ = with_features(*load_weights("embedded", "", 64), "whitened", covariance)
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, N_FEATURES)
