"""Episodes in several processes, with the results of one.

On one machine, one process computes what the frozen part says of the images and shares it by files that are mapped into
memory; the others fine-tune, each with a single thread, which is what small networks on small batches are fastest with.
The workers of a cluster are sent the network and the images once, and compute what they need.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray

from tl_core.classifier import load_backbone, save_backbone
from tl_core.datasets import ImageDataset
from tl_core.engines import open_workers
from tl_core.episodes import Episode
from tl_core.finetune import EpisodeResult, Finetuner
from tl_core.recipes import LOCAL, Engine, FinetuneRecipe

_AHEAD = 32  # episodes per process whose activations are computed before any of them is fine-tuned

Views = Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True)
class _Work:
    """What a process needs to fine-tune as this one would; on one machine arrays travel as references to mapped files.

    Attributes:
        folder: holds the backbone's files, and names the work.
        files: the backbone's files by name, where the folder cannot be read.
    """

    folder: str
    dataset: ImageDataset
    recipe: FinetuneRecipe
    files: Mapping[str, bytes] = field(default_factory=dict)


_held: dict[str, Finetuner] = {}  # by folder; of the work in hand alone
_alone = threading.Lock()  # a worker of Dask may have several threads, and a network is trained by one


def run_episodes(
    finetuner: Finetuner,
    episodes: Iterable[Episode],
    recipe: FinetuneRecipe,
    n_workers: int,
    engine: Engine = LOCAL,
) -> Iterator[EpisodeResult]:
    """`finetuner.run_episodes`, in the same order and to the last bit the same for any number of processes.

    A linear head alone is solved in this process, and an accelerator is not shared.

    Args:
        n_workers: processes; 0 is one per core of the machine or the cluster.
        engine: whose processes.

    Raises:
        InputError: the engine is not installed, or its cluster does not answer.
    """
    if finetuner.device.type != "cpu" or finetuner.is_probing(recipe):
        yield from finetuner.run_episodes(episodes, recipe)
    elif engine != LOCAL:
        yield from _send_out(finetuner, episodes, recipe, n_workers, engine)
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
    with tempfile.TemporaryDirectory() as folder:
        save_backbone(finetuner.backbone, finetuner.spec, Path(folder))
        finetuner.share(recipe, Path(folder))
        work = _Work(folder, _without_names(finetuner.dataset), recipe)
        with open_workers(LOCAL, n_workers, work) as workers:
            remaining = iter(episodes)
            while block := list(itertools.islice(remaining, workers.n * _AHEAD)):
                views = finetuner.compute(block, recipe)
                yield from workers.run(_fine_tune, ((episode, views) for episode in block))


def _send_out(
    finetuner: Finetuner, episodes: Iterable[Episode], recipe: FinetuneRecipe, n_workers: int, engine: Engine
) -> Iterator[EpisodeResult]:
    with tempfile.TemporaryDirectory() as folder:
        save_backbone(finetuner.backbone, finetuner.spec, Path(folder))
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    dataset = _without_names(finetuner.dataset)
    # As plain arrays: a mapped file would travel as its name, or be mapped anew.
    work = _Work(uuid4().hex, replace(dataset, images=np.asarray(dataset.images)), recipe, files)
    with open_workers(engine, n_workers, work) as workers:
        yield from workers.run(_fine_tune, ((episode, {}) for episode in episodes))


def _without_names(dataset: ImageDataset) -> ImageDataset:
    """Names and hashes are of no use to a worker."""
    return replace(dataset, file_names=(), content_hashes=(), unreadable=(), parts=())


def _fine_tune(work: _Work, episode: Episode, views: Views) -> EpisodeResult:
    with _alone:
        if work.folder not in _held:
            torch.set_num_threads(1)
            _held.clear()
            _held[work.folder] = _open(work)
        finetuner = _held[work.folder]
        finetuner.adopt(work.recipe, views)
        (result,) = finetuner.run_episodes([episode], work.recipe)
        return result


def _open(work: _Work) -> Finetuner:
    with tempfile.TemporaryDirectory() as received:
        for name, content in work.files.items():
            Path(received, name).write_bytes(content)
        network, spec = load_backbone(Path(received if work.files else work.folder))
    return Finetuner(network, spec, work.dataset, torch.device("cpu"))
