"""Episodes in several processes, with the results of one.

On one machine, one process computes what the frozen part says of the images and shares it by files that are mapped into
memory; the others fine-tune, each with a single thread, which is what small networks on small batches are fastest with.
The workers of a cluster are sent the network and the images once, and compute what they need.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from joblib.externals.loky import process_executor
from numpy.typing import NDArray

from tl_core.compute.devices import one_thread
from tl_core.compute.engines import open_workers
from tl_core.data.dataset import ImageDataset
from tl_core.data.episodes import Episode
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.results import EpisodeResult
from tl_core.heads.storage import load_backbone, save_backbone
from tl_core.recipes.engine import LOCAL, Engine
from tl_core.recipes.finetune import FinetuneRecipe

_AHEAD = 32  # episodes per process whose activations are computed before any of them is fine-tuned

Views = Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True)
class Package:
    """A network and its images as they travel to a worker; on one machine arrays do so as references to mapped files.

    Attributes:
        name: tells packages apart; where `files` is empty, the folder that holds the backbone's files.
        files: the backbone's files by name, where a folder cannot be read.
    """

    name: str
    dataset: ImageDataset
    files: Mapping[str, bytes] = field(default_factory=dict)


@contextmanager
def packed(finetuner: Finetuner, engine: Engine) -> Iterator[Package]:
    """Pack a finetuner for a process of this machine or of a cluster; `unpacked` makes the same one of it."""
    # Names and hashes are of no use to a worker.
    dataset = replace(finetuner.dataset, file_names=(), content_hashes=(), unreadable=(), parts=())
    with tempfile.TemporaryDirectory() as folder:
        save_backbone(finetuner.backbone, finetuner.spec, Path(folder))
        if engine == LOCAL:
            yield Package(folder, dataset)
        else:
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
            # As plain arrays: a mapped file would travel as its name, or be mapped anew.
            yield Package(uuid4().hex, replace(dataset, images=np.asarray(dataset.images)), files)


@contextmanager
def unpacked(package: Package) -> Iterator[Finetuner]:
    """In a worker: the finetuner of a package, made once and kept while the same work goes on."""
    with _alone:
        if package.name not in _held:
            torch.set_num_threads(1)
            # Activations that are kept are no leak, for which loky would start the process anew, without them.
            process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
            _held.clear()
            _held[package.name] = _open(package)
        yield _held[package.name]


def _open(package: Package) -> Finetuner:
    with tempfile.TemporaryDirectory() as received:
        for name, content in package.files.items():
            Path(received, name).write_bytes(content)
        network, spec = load_backbone(Path(received if package.files else package.name))
    return Finetuner(network, spec, package.dataset, torch.device("cpu"))


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


def _share_out(
    finetuner: Finetuner, episodes: Iterable[Episode], recipe: FinetuneRecipe, n_workers: int
) -> Iterator[EpisodeResult]:
    with packed(finetuner, LOCAL) as package:
        finetuner.share(recipe, Path(package.name))
        with open_workers(LOCAL, n_workers, (package, recipe)) as workers:
            remaining = iter(episodes)
            while block := list(itertools.islice(remaining, workers.n * _AHEAD)):
                views = finetuner.compute(block, recipe)
                yield from workers.run(_fine_tune, ((episode, views) for episode in block))


def _send_out(
    finetuner: Finetuner, episodes: Iterable[Episode], recipe: FinetuneRecipe, n_workers: int, engine: Engine
) -> Iterator[EpisodeResult]:
    with packed(finetuner, engine) as package, open_workers(engine, n_workers, (package, recipe)) as workers:
        yield from workers.run(_fine_tune, ((episode, {}) for episode in episodes))


def _fine_tune(work: tuple[Package, FinetuneRecipe], episode: Episode, views: Views) -> EpisodeResult:
    package, recipe = work
    with unpacked(package) as finetuner:
        finetuner.adopt(recipe, views)
        (result,) = finetuner.run_episodes([episode], recipe)
        return result
