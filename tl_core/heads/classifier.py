"""A classifier: scaling and normalisation, backbone, head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tl_core.networks.backbones import BackboneSpec
from tl_core.networks.normalise import Normalise
from tl_core.recipes.checks import check_range
from tl_core.views.fixed import dihedral_view, fixed_views, to_float


class Classifier(nn.Module):
    """uint8 images (n, h, w, 3) to logits (n, n_classes), of one or several views of each image.

    The logits are divided by a temperature (Guo et al., 2017), which changes how sure an answer is and never which.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        backbone: nn.Module,
        head: nn.Module,
        test_views: str = "none",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_range("temperature", temperature, 1e-3, 1e3)
        self.normalise = Normalise(spec)
        self.backbone = backbone
        self.head = head
        self.views = fixed_views(test_views)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor(temperature), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, h, w, 3) to logits (n, n_classes)."""
        pixels = self.normalise(to_float(images))
        views = torch.stack([self.head(self.backbone(dihedral_view(pixels, v))) for v in self.views])
        return average_views(views) / self.temperature


@dataclass(frozen=True)
class ClassifierDescription:
    """Description from which a classifier is rebuilt."""

    backbone: BackboneSpec
    class_names: tuple[str, ...]
    head: str
    """Its name in `tl_core.recipes.heads`."""
    test_views: str = "none"
    temperature: float = 1.0


def average_views(logits: Tensor) -> Tensor:
    """Logits of the mean probability over the first axis: (n_views, ..., n_classes) to (..., n_classes)."""
    return logits[0] if len(logits) == 1 else logits.log_softmax(-1).logsumexp(0)
