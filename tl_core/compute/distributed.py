"""Several processes that train one model: torchrun starts them, each takes its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import Function
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """The processes that work together, and which of them this one is."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """True if this is the process that logs and saves."""
        return self.rank == 0


ALONE = World()


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Meet the other processes that torchrun has started; without torchrun there are none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def share_gradients(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over all processes; the model itself where there is one process."""
    return DistributedDataParallel(model) if dist.is_initialized() else model


def share_statistics(model: nn.Module) -> nn.Module:
    """Let every batch norm of a model see the whole batch, not this process's share; parameters stay the same ones."""
    if next(model.parameters()).device.type == "cuda":
        synchronised: nn.Module = convert_sync_batchnorm(model)  # torch's own would lose timm's activations
        return synchronised
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and type(child) in (nn.BatchNorm2d, BatchNormAct2d):
                setattr(parent, name, _SharedBatchNorm2d.like(child))
    return model


def total(values: Tensor) -> Tensor:
    """Sum of a tensor over all processes."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def is_leader() -> bool:
    """True in the process that logs and saves."""
    return not dist.is_initialized() or dist.get_rank() == 0


def process_count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


class _Sum(Function):
    """`total`, with its gradient: what every process's loss owes to a share of the sum, summed in turn."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 - torch's interface
        return total(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - torch's interface
        return total(gradient)


class _SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all processes, for the CPU, where torch's own does not work.

    Drop and act follow it, as in timm's `BatchNormAct2d`.
    """

    drop: nn.Module
    act: nn.Module

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> _SharedBatchNorm2d:
        shared = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        shared.drop = norm.drop if isinstance(norm, BatchNormAct2d) else nn.Identity()
        shared.act = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
        shared.train(norm.training)
        for name, value in [*norm.named_parameters(), *norm.named_buffers()]:
            setattr(shared, name, value)
        return shared

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """float (n, c, h, w), this process's share, to the same shape."""
        outputs: Tensor = self.act(self.drop(self._normalise(input)))
        return outputs

    def _normalise(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = process_count() * values.numel() / values.shape[1]
        mean = _Sum.apply(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        normalised = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            normalised = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        shared: Tensor = normalised.to(input.dtype)
        return shared
