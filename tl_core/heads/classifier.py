"""A classifier: scaling and normalisation, backbone, head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.networks.backbones import BackboneSpec
from tl_core.networks.normalise import Normalise
from tl_core.recipes.checks import check_range
from tl_core.views.fixed import dihedral_view, fixed_views, to_float


class Classifier(nn.Module):
    """uint8 images (n, h, w, 3) to logits (n, n_classes), of one or several views of each image.

    The logits are divided by a temperature (Guo et al., 2017), which changes how sure an answer is and never which.
    With class means, float (n_classes, n_features) in rows of length 1, it also compares an image with each class.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        backbone: nn.Module,
        head: nn.Module,
        test_views: str = "none",
        temperature: float = 1.0,
        class_means: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_range("temperature", temperature, 1e-3, 1e3)
        self.normalise = Normalise(spec)
        self.backbone = backbone
        self.head = head
        self.views = fixed_views(test_views)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor(temperature), persistent=False)
        self.class_means: Tensor | None
        self.register_buffer("class_means", class_means)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, h, w, 3) to logits (n, n_classes)."""
        return self._logits(self._features(images))

    def forward_with_similarity(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the cosine of each image's features to the nearest class mean; needs class means.

        The features are those of the backbone, before the head centres them, averaged over the test views.

        Args:
            images: uint8 (n, h, w, 3).

        Returns:
            Logits (n, n_classes) and similarities (n,).
        """
        assert self.class_means is not None
        features = self._features(images)
        directions = F.normalize(torch.stack(features).mean(0), dim=1)
        return self._logits(features), (directions @ self.class_means.T).amax(1)

    def mean_features(self, images: Tensor) -> Tensor:
        """uint8 (n, h, w, 3) to the backbone's features (n, n_features), averaged over the test views."""
        return torch.stack(self._features(images)).mean(0)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Features of each test view: n_views times (n, n_features)."""
        pixels = self.normalise(to_float(images))
        return [self.backbone(dihedral_view(pixels, view)) for view in self.views]

    def _logits(self, features: list[Tensor]) -> Tensor:
        return average_views(torch.stack([self.head(of_view) for of_view in features])) / self.temperature


@dataclass(frozen=True)
class ClassifierDescription:
    """Description from which a classifier is rebuilt."""

    backbone: BackboneSpec
    class_names: tuple[str, ...]
    head: str
    """Its name in `tl_core.recipes.heads`."""
    test_views: str = "none"
    temperature: float = 1.0
    has_class_means: bool = False
    unlike_below: float | None = None
    """Similarity to the nearest class mean below which an image looks like none of the classes."""


def average_views(logits: Tensor) -> Tensor:
    """Logits of the mean probability over the first axis: (n_views, ..., n_classes) to (..., n_classes)."""
    return logits[0] if len(logits) == 1 else logits.log_softmax(-1).logsumexp(0)
