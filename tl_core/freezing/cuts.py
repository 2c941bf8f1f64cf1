"""A backbone cut where a recipe freezes it, once for each depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_core.freezing.activations import FrozenActivations
from tl_core.freezing.split import SplitBackbone, split_backbone
from tl_core.heads.table import head_class
from tl_core.networks.backbones import BackboneSpec
from tl_core.networks.normalise import Normalise
from tl_core.recipes.finetune import FinetuneRecipe


@dataclass(frozen=True)
class Cut:
    """A backbone cut at one depth, with what an episode needs to start afresh."""

    split: SplitBackbone
    activations: FrozenActivations
    suffix_state: dict[str, Tensor]
    unfrozen: frozenset[nn.Parameter]
    """The suffix may hold others too: those of a block that is cut in two."""

    def is_probed(self, recipe: FinetuneRecipe) -> bool:
        """True if a solved head is all that is fitted."""
        return self.is_frozen and head_class(recipe.head).is_solved

    def is_trained(self, recipe: FinetuneRecipe) -> bool:
        """True if training would update any parameter."""
        return recipe.steps > 0 and not self.is_probed(recipe)

    def restore(self) -> None:
        """Give the suffix the backbone's own weights back."""
        self.split.suffix.load_state_dict(self.suffix_state)

    @property
    def is_frozen(self) -> bool:
        """True if no part of the backbone is trained."""
        return self.split.n_frozen == self.split.n_groups


class Cuts:
    """All depths at which one backbone has been cut; images are those of one dataset."""

    def __init__(
        self, backbone: nn.Module, spec: BackboneSpec, images: NDArray[np.uint8], device: torch.device
    ) -> None:
        self._backbone = backbone
        self._spec = spec
        self._images = images
        self._device = device
        self._made: dict[float, Cut] = {}

    def at(self, recipe: FinetuneRecipe) -> Cut:
        """Return the cut for a recipe; from now on those parameters require gradients that the recipe trains."""
        cut = self._made.get(recipe.freeze_depth) or self._make(recipe.freeze_depth)
        for parameter in self._backbone.parameters():
            parameter.requires_grad_(parameter in cut.unfrozen)
        return cut

    def _make(self, freeze_depth: float) -> Cut:
        split = split_backbone(self._backbone, freeze_depth)
        twin = next((cut for cut in self._made.values() if cut.split.n_frozen == split.n_frozen), None)
        self._made[freeze_depth] = twin or self._new(split)
        return self._made[freeze_depth]

    def _new(self, split: SplitBackbone) -> Cut:
        prefix = nn.Sequential(Normalise(self._spec), split.prefix)
        keep = not isinstance(split.prefix, nn.Identity)
        activations = FrozenActivations(prefix, self._images, self._device, keep)
        state = {name: value.detach().clone() for name, value in split.suffix.state_dict().items()}
        unfrozen = frozenset(p for p in split.suffix.parameters() if p.requires_grad)
        return Cut(split, activations, state, unfrozen)
