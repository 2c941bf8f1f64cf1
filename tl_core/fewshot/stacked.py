"""Several small networks of one shape, trained side by side as one: what keeps an accelerator busy.

Parameters and buffers are stacked along a new first axis, and one forward pass serves all (torch.func). Each network's
loss is its own, and the optimisers work element by element, so that each is trained as if it were alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tl_core.networks.batch_norms import train_mode
from tl_core.training.optimizers import FitOptions, build_scheduler, optimizer_over


class StackedNetworks:
    """Networks of one shape with weights of their own, called and trained together."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._state, self._buffers = stack_module_state(list(networks))
        self._skeleton = copy.deepcopy(networks[0])

    def train(self, batches: Iterable[tuple[Tensor, Tensor]], options: FitOptions) -> None:
        """One pass over batches of inputs (networks, n, ...) and int64 labels (networks, n)."""
        train_mode(self._skeleton, options.batch_statistics)
        trained = {name: value for name, value in self._state.items() if value.requires_grad}
        # One dimension more than each network's own parameter has.
        matrices = [value for value in trained.values() if value.ndim > 2]
        vectors = [value for value in trained.values() if value.ndim <= 2]
        optimizer = optimizer_over(matrices, vectors, options)
        scheduler = build_scheduler(optimizer, options)
        for inputs, labels in batches:
            with torch.autocast(inputs.device.type, options.dtype, enabled=options.dtype != torch.float32):
                logits = self(inputs).float()
            of_each = F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), label_smoothing=options.label_smoothing, reduction="none"
            )
            loss = of_each.view(labels.shape).mean(1).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (networks, n, ...) to outputs (networks, n, ...), each network's own."""

        def one(state: dict[str, Tensor], buffers: dict[str, Tensor], of_one: Tensor) -> Tensor:
            outputs: Tensor = functional_call(self._skeleton, (state, buffers), (of_one,))
            return outputs

        # The fused attention kernels cannot be stacked.
        with sdpa_kernel(SDPBackend.MATH):
            outputs: Tensor = vmap(one, randomness="different")(self._state, self._buffers, inputs)
        return outputs

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """Outputs in evaluation mode, on the CPU."""
        self._skeleton.eval()
        return self(inputs).float().cpu()
