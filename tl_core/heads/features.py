"""Backbone features of many images, as a classifier's class means are made of."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tl_core.data.splits import Indices
from tl_core.heads.classifier import Classifier

_BATCH = 128


@torch.no_grad()
def image_features(
    classifier: Classifier, images: NDArray[np.uint8], device: torch.device, rows: Indices | None = None
) -> NDArray[np.float32]:
    """Compute each image's features, averaged over the classifier's test views.

    Args:
        images: uint8 (n, s, s, 3), read in batches: they may be mapped from a file.
        rows: which of them; all by default.

    Returns:
        float32 (n_rows, n_features); the classifier is left on the CPU, in evaluation mode.
    """
    rows = np.arange(len(images)) if rows is None else rows
    classifier.to(device).eval()
    try:
        batches = (np.array(images[rows[start : start + _BATCH]]) for start in range(0, len(rows), _BATCH))
        features = [classifier.mean_features(torch.from_numpy(batch).to(device)).cpu() for batch in batches]
    finally:
        classifier.cpu()
    return torch.cat(features).float().numpy()
