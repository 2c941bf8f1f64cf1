"""Backbones: any timm architecture that turns normalised images into one feature vector each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.errors import InputError
from tl_core.networks import architectures  # noqa: F401 - registers our own with timm
from tl_core.networks.whitening import whitening
from tl_core.recipes.choices import Features

N_STAGES = 4
"""Stages whose features are taken together; a network with fewer gives all it has."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneSpec:
    """Description from which a backbone is rebuilt and fed; it travels with the weights."""

    architecture: str
    """Name in timm's registry."""
    image_size: int
    """Side of the square input in pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Channel means that the backbone was trained with."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Channel deviations that the backbone was trained with."""
    features: Features = "last"
    """Source of the feature vector: the last stage, the last `N_STAGES`, or those whitened by the source."""


class StageFeatures(nn.Module):
    """The mean maps of a network's last stages beside each other, not that of the last one alone.

    Earlier stages are less bound to the source's classes. Of each stage's means the signed square root is taken and
    scaled to length 1 (Perronnin et al., 2010), so that no stage and no few channels outweigh the rest.

    Args:
        network: shows its stages.
        image_size: side of the images in pixels.
        whiten: features are multiplied by `projection`, a matrix that is kept with the weights.
    """

    projection: Tensor | None

    def __init__(self, network: nn.Module, image_size: int, *, whiten: bool = False) -> None:
        super().__init__()
        self.network = network
        self.n_stages, width, self.unused = _probe_stages(network, image_size)
        """Stages that are taken, their channels, and names of the network's parameters that they do not depend on."""
        self.register_buffer("projection", torch.eye(width) if whiten else None)

    def forward(self, images: Tensor) -> Tensor:
        """float (n, 3, s, s) to (n, n_features), the sum of the stages' channels."""
        maps = self.network.forward_intermediates(images, indices=self.n_stages, intermediates_only=True)  # type: ignore[operator]
        means = [stage.mean((2, 3)) for stage in maps]
        # The epsilon under the root keeps the gradient finite at zero, where rectified channels often are.
        roots = [mean.sign() * (mean.abs() + 1e-12).sqrt() for mean in means]
        features = torch.cat([F.normalize(root, dim=1) for root in roots], dim=1)
        return features if self.projection is None else features @ self.projection


def with_features(
    backbone: nn.Module, spec: BackboneSpec, features: Features, covariance: Tensor | None = None
) -> tuple[nn.Module, BackboneSpec]:
    """A plain backbone with the given kind of output.

    Args:
        covariance: float (d, d), that of the stages' features within the classes of the source; needed to whiten.

    Raises:
        InputError: the network does not show its stages, or nothing is known to whiten them by.
    """
    if features == "last":
        return backbone, spec
    if not hasattr(backbone, "forward_intermediates"):
        raise InputError(f"features is {features}, but {spec.architecture} does not show its stages; give last")
    if features == "whitened" and covariance is None:
        raise InputError(
            "expected weights that know how features vary within the classes of their source (embedded, or a pretrain "
            "run) for features=whitened, got others; give features=stages"
        )
    wrapped, spec = _wrap(backbone, spec, features)
    if covariance is not None and wrapped.projection is not None:
        if covariance.shape != wrapped.projection.shape:
            raise InputError(
                f"expected a covariance of {len(wrapped.projection)} features of {spec.architecture}, "
                f"got one of {len(covariance)}"
            )
        wrapped.projection.copy_(whitening(covariance))
    check_size(wrapped, spec)
    return wrapped, spec


def _wrap(backbone: nn.Module, spec: BackboneSpec, features: Features) -> tuple[StageFeatures, BackboneSpec]:
    wrapped = StageFeatures(backbone, spec.image_size, whiten=features == "whitened")
    return wrapped, replace(spec, features=features)


def _probe_stages(network: nn.Module, image_size: int) -> tuple[int, int, frozenset[str]]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    wanted = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        images = torch.zeros(1, 3, image_size, image_size)
        maps = network.eval().forward_intermediates(images, intermediates_only=True)[-N_STAGES:]  # type: ignore[operator]
        total = torch.stack([stage.sum() for stage in maps]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, before in zip(parameters, wanted, strict=True):
        parameter.requires_grad_(before)
    unused = frozenset(name for name, gradient in zip(names, gradients, strict=True) if gradient is None)
    return len(maps), sum(stage.shape[1] for stage in maps), unused


def build_backbone(spec: BackboneSpec, seed: int) -> nn.Module:
    """A randomly initialised backbone without classifier: float (n, 3, s, s) to features (n, n_features).

    Raises:
        InputError: timm does not know the architecture, or it cannot work at this image size.
    """
    if not timm.is_model(spec.architecture):
        near = difflib.get_close_matches(spec.architecture, timm.list_models(), n=3)
        hint = f"; near are {', '.join(near)}" if near else ""
        raise InputError(f"expected a backbone out of timm.list_models(), got {spec.architecture!r}{hint}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone: nn.Module = timm.create_model(spec.architecture, num_classes=0, **size_option(spec))
    if hasattr(backbone, "pre_logits"):
        # VGG: the convolutional part with global pooling; its 120 M dense weights suit neither small
        # images nor small data.
        backbone.pre_logits = nn.Identity()
    _open_residual_branches(backbone)
    check_size(backbone, spec)
    return backbone if spec.features == "last" else _wrap(backbone, spec, spec.features)[0]


def n_features(backbone: nn.Module, spec: BackboneSpec) -> int:
    """Width of the feature vector, by asking the network itself."""
    with torch.no_grad():
        size = spec.image_size
        return int(backbone.eval()(torch.zeros(2, 3, size, size)).shape[1])


def _open_residual_branches(backbone: nn.Module) -> None:
    # timm starts the last normalisation of every residual branch at zero. An untrained network would then be little
    # more than its stem, and as a control it would flatter whatever is compared with it (docs/experiments.md).
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and not module.weight.any():
            nn.init.ones_(module.weight)


def size_option(spec: BackboneSpec) -> dict[str, int]:
    """The keyword that tells timm's builder the image size, for networks that are built for one size."""
    known = get_pretrained_cfg(spec.architecture, allow_unregistered=True)
    return {"img_size": spec.image_size} if known is not None and known.fixed_input_size else {}


def check_size(backbone: nn.Module, spec: BackboneSpec) -> None:
    """Raise `InputError` if the backbone cannot work on images of this size."""
    try:
        n_features(backbone, spec)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"{spec.architecture} cannot work on {spec.image_size} x {spec.image_size} images ({error}); "
            "give a larger image_size"
        ) from error
