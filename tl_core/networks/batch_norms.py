"""Statistics of batch norms (Ioffe and Szegedy, 2015): those of the batch, or those that were learnt."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from tl_core.errors import InputError
from tl_core.recipes.train import NormStatistics


class HeadNorm(nn.BatchNorm1d):
    """Batch norm of a head, which starts from nothing and so has no statistics to keep: it always learns them."""


def train_mode(model: nn.Module, batch_statistics: bool) -> None:
    """Training mode, in which batch norm uses (and learns) the statistics of the batches, or keeps those it has.

    A `HeadNorm` learns either way, and a norm whose weights are frozen never does.
    """
    model.train()
    for norm in _batch_norms(model):
        norm.train((batch_statistics or isinstance(norm, HeadNorm)) and not _is_frozen(norm))


def learns_statistics(norm_statistics: NormStatistics, backbone: nn.Module) -> bool:
    """True if a backbone's batch norms learn: as the option says, or, for auto, if there are no statistics to keep.

    Statistics other than those that the weights were trained with move every feature before the first step.

    Raises:
        InputError: norm_statistics is keep, and no batch norm of the backbone has learnt any.
    """
    has_them = has_statistics(backbone)
    if norm_statistics == "keep":
        if not has_them and any(_batch_norms(backbone)):
            raise InputError("expected norm_statistics auto or learn for new batch norms, got keep")
        return False
    return norm_statistics == "learn" or not has_them


def has_statistics(network: nn.Module) -> bool:
    """True if a batch norm has learnt statistics; those of a new one are zeros and ones."""
    return any(
        bool(norm.running_mean.any()) or bool((norm.running_var != 1).any())
        for norm in _batch_norms(network)
        if norm.running_mean is not None and norm.running_var is not None
    )


def _is_frozen(norm: BatchNorm) -> bool:
    return norm.affine and not norm.weight.requires_grad


def _batch_norms(model: nn.Module) -> Iterator[BatchNorm]:
    return (module for module in model.modules() if isinstance(module, BatchNorm))
