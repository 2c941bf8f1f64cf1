"""What a network has seen is handed on to those that start from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pipelines.inputs.provenance import check_unseen, log_seen_images
from pipelines.store.runs import tracked_run
from tests.tl_core.made_datasets import made_dataset
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@dataclass(frozen=True)
class Pretraining:
    seed: int = 0


def test_what_the_network_before_has_seen_counts_as_seen(store: str) -> None:
    target, source = (
        made_dataset([0, 0, 1, 1], contents=[f"{first + number:016x}" for number in range(4)]) for first in (0, 10)
    )
    with tracked_run("pretrain", Pretraining()) as first:
        log_seen_images(target, np.array([0, 2]))
    with tracked_run("pretrain", Pretraining()) as second:
        log_seen_images(source, np.arange(4), first)
    with pytest.raises(InputError, match="has seen 2 of the 4 images to report on; repeat the pretrain without them"):
        check_unseen(second, "pretrain", target, np.arange(4))
    check_unseen(second, "pretrain", target, np.array([1, 3]))
