"""Episodes in several processes, with the results of one.

One process computes what the frozen part says of the images and shares it by files that are mapped into memory; the
others fine-tune, each with a single thread, which is what small networks on small batches are fastest with.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from joblib.externals.loky import process_executor
from numpy.typing import NDArray

from tl_core.classifier import load_backbone, save_backbone
from tl_core.datasets import ImageDataset
from tl_core.episodes import Episode
from tl_core.finetune import EpisodeResult, Finetuner
from tl_core.recipes import FinetuneRecipe

_AHEAD = 32  # episodes per process whose activations are computed before any of them is fine-tuned


@dataclass(frozen=True)
class _Work:
    """What a process needs to fine-tune as this one would; arrays travel as references to mapped files."""

    folder: str
    dataset: ImageDataset
    recipe: FinetuneRecipe


_held: dict[str, Finetuner] = {}  # by folder; of the work in hand alone


def run_episodes(
    finetuner: Finetuner, episodes: Iterable[Episode], recipe: FinetuneRecipe, n_workers: int
) -> Iterator[EpisodeResult]:
    """`finetuner.run_episodes`, in the same order and to the last bit the same for any number of processes.

    A linear head alone is solved in this process, and an accelerator is not shared.
    """
    if finetuner.device.type != "cpu" or finetuner.is_probing(recipe):
        yield from finetuner.run_episodes(episodes, recipe)
    elif n_workers == 1:
        with one_thread():
            yield from finetuner.run_episodes(episodes, recipe)
    else:
        yield from _share_out(finetuner, episodes, recipe, n_workers)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: with another number of them, sums are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _share_out(
    finetuner: Finetuner, episodes: Iterable[Episode], recipe: FinetuneRecipe, n_workers: int
) -> Iterator[EpisodeResult]:
    with tempfile.TemporaryDirectory() as folder, Parallel(n_workers, return_as="generator") as processes:
        save_backbone(finetuner.backbone, finetuner.spec, Path(folder))
        finetuner.share(recipe, Path(folder))
        # Names and hashes are of no use there.
        work = _Work(folder, replace(finetuner.dataset, file_names=(), content_hashes=(), unreadable=()), recipe)
        remaining = iter(episodes)
        while block := list(itertools.islice(remaining, n_workers * _AHEAD)):
            views = finetuner.compute(block, recipe)
            yield from processes(delayed(_fine_tune)(work, views, episode) for episode in block)


def held_finetuner(folder: str, dataset: ImageDataset) -> Finetuner:
    """In another process: that of the backbone in a folder, made once and kept while the same work goes on."""
    if folder not in _held:
        torch.set_num_threads(1)
        # Activations that are kept are no leak, for which loky would start the process anew, without them.
        process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
        network, spec = load_backbone(Path(folder))
        _held.clear()
        _held[folder] = Finetuner(network, spec, dataset, torch.device("cpu"))
    return _held[folder]


def _fine_tune(work: _Work, views: dict[int, NDArray[np.float32]], episode: Episode) -> EpisodeResult:
    finetuner = held_finetuner(work.folder, work.dataset)
    finetuner.adopt(work.recipe, views)
    (result,) = finetuner.run_episodes([episode], work.recipe)
    return result
