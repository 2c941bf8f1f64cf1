"""A backbone cut where a recipe freezes it, once for each depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_core.errors import InputError
from tl_core.freezing.activations import FrozenActivations
from tl_core.freezing.split import SplitBackbone, split_backbone
from tl_core.networks.backbones import BackboneSpec
from tl_core.networks.normalise import Normalise
from tl_core.recipes.finetune import FinetuneRecipe

NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Cut:
    """A backbone cut at one depth, with what an episode needs to start afresh."""

    split: SplitBackbone
    activations: FrozenActivations
    suffix_state: dict[str, Tensor]
    unfrozen: frozenset[nn.Parameter]
    """The suffix may hold others too: those of a block that is cut in two."""

    def is_probed(self, recipe: FinetuneRecipe) -> bool:
        """Whether a linear head is all that is fitted: a convex problem, solved and not trained."""
        return self.is_frozen and recipe.head == "linear"

    def is_trained(self, recipe: FinetuneRecipe) -> bool:
        """Whether there are steps to take, on something that they would move."""
        by_head = recipe.head == "cosine" and recipe.objective == "cross_entropy"
        return recipe.steps > 0 and (by_head or not self.is_frozen)

    def restore(self) -> None:
        """Give the suffix the backbone's own weights back."""
        self.split.suffix.load_state_dict(self.suffix_state)

    def has_batch_norm(self) -> bool:
        """Whether a batch norm is unfrozen."""
        norms = (m for m in self.split.suffix.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        return any(parameter in self.unfrozen for norm in norms for parameter in norm.parameters())

    @property
    def is_frozen(self) -> bool:
        """Whether no part of the backbone is trained."""
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
        # Of the whole backbone: once it is cut, parameters of some layers hang on modules without a type.
        norms = (module for module in backbone.modules() if isinstance(module, NORMALISATIONS))
        self._norms = frozenset(parameter for norm in norms for parameter in norm.parameters())

    def at(self, recipe: FinetuneRecipe) -> Cut:
        """The cut for a recipe; from now on those parameters require gradients that the recipe trains.

        Raises:
            InputError: the recipe asks of this cut what it cannot do.
        """
        cut = self._made.get(recipe.freeze_depth) or self._make(recipe.freeze_depth)
        trained = cut.unfrozen if recipe.trained == "all" else cut.unfrozen & self._norms
        for parameter in self._backbone.parameters():
            parameter.requires_grad_(parameter in trained)
        if recipe.transductive == "label_propagation" and not cut.is_probed(recipe):
            raise InputError(
                "transductive is label_propagation with a head that is trained; allowed is none or query_statistics "
                "(or give freeze_depth=1 and head=linear)"
            )
        if recipe.transductive == "query_statistics" and not cut.has_batch_norm():
            raise InputError(
                f"transductive is query_statistics, but freeze_depth={recipe.freeze_depth:g} leaves no batch norm "
                "unfrozen; allowed is none (or give a lower freeze_depth)"
            )
        return cut

    def _make(self, freeze_depth: float) -> Cut:
        split = split_backbone(self._backbone, freeze_depth)
        twin = next((cut for cut in self._made.values() if cut.split.n_frozen == split.n_frozen), None)
        self._made[freeze_depth] = twin or self._new(split)
        return self._made[freeze_depth]

    def _new(self, split: SplitBackbone) -> Cut:
        prefix = nn.Sequential(Normalise(self._spec), split.prefix)
        keep = split.n_frozen > 0 or split.n_groups == 0
        activations = FrozenActivations(prefix, self._images, self._device, keep)
        state = {name: value.detach().clone() for name, value in split.suffix.state_dict().items()}
        unfrozen = frozenset(p for p in split.suffix.parameters() if p.requires_grad)
        return Cut(split, activations, state, unfrozen)
