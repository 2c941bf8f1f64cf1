"""Table of heads by name. A new head is one file in `tl_core.heads` and one line here.

Free of torch, so that the command line can list the names; `tl_core.heads.table` imports a class when it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class HeadEntry:
    """Place of a head's class, and the recipes that offer it."""

    location: str
    """`module:class`."""
    few_shot: bool = False
    """Offered for fine-tuning on a few images."""
    train: bool = False
    """Offered for training on a whole labelled set."""


HEADS: dict[str, HeadEntry] = {
    "linear": HeadEntry("tl_core.heads.linear:LinearHead", few_shot=True, train=True),
    "cosine": HeadEntry("tl_core.heads.cosine:CosineHead", few_shot=True),
    "prototypes": HeadEntry("tl_core.heads.prototypes:PrototypeHead", few_shot=True),
    "dense": HeadEntry("tl_core.heads.dense:DenseHead", train=True),
    "dense_norm": HeadEntry("tl_core.heads.dense:DenseNormHead", train=True),
}


def few_shot_heads() -> tuple[str, ...]:
    """Names of the heads for a few labelled images."""
    return tuple(name for name, entry in HEADS.items() if entry.few_shot)


def train_heads() -> tuple[str, ...]:
    """Names of the heads for a whole labelled set."""
    return tuple(name for name, entry in HEADS.items() if entry.train)


if TYPE_CHECKING:
    FewShotHead = str
    TrainHead = str
else:  # the command line reads its choices from these
    FewShotHead = Literal[few_shot_heads()]
    TrainHead = Literal[train_heads()]
