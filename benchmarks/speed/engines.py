"""What episodes, images and records cost as they become more, and what an engine costs on the same cores.

    python -m benchmarks.speed.engines --engines local,ray,dask --n_trials 40

The numbers of docs/scaling.md. Every engine has the same number of workers on this machine; the answers are compared to
the last bit. The last column leaves the first quarter out, in which workers start and are sent what they need. What
trials are proposed depends on which end first; the scores of each are compared with those that this process gives its
recipe.
"""

from __future__ import annotations

import itertools
import pickle
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import torch
import tyro

from pipelines.store.child_runs import ChildRuns, FinishedRun
from pipelines.store.journal import append_journal
from tl_core.compute.devices import one_thread
from tl_core.data.dataset import load_dataset
from tl_core.data.episodes import build_pool, sample_episode
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.parallel import run_episodes
from tl_core.fewshot.results import EpisodeResult
from tl_core.heads.storage import save_backbone
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.engine import Engine
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.search.objective import Budget
from tl_core.search.space import parse_space
from tl_core.search.studies import build_study
from tl_core.search.trials import prepare_study
from tl_core.search.workers import EpisodeScores, Search

SPEC = BackboneSpec("resnet10_small", 32)
RECIPE = FinetuneRecipe(freeze_depth=0.5, steps=10)
SHAPE = EpisodeShape(5, 5, 15)
EPISODES_OF_TRIAL = 8


@dataclass(frozen=True)
class Options:
    """What to measure."""

    engines: str = "local"
    """Engines, with commas between; empty leaves them out."""
    n_episodes: int = 600
    """Episodes for each engine; a quarter and a half of them are timed too."""
    n_trials: int = 0
    """Trials of a search on each engine; 0 is no search."""
    workers: int = 2
    """Workers of each engine."""
    freeze_depth: float = RECIPE.freeze_depth
    """Of an episode's recipe: what is not frozen makes an episode long."""
    address: str = ""
    """Where the cluster is; empty starts one here. Its hosts must reach the temporary folder that the study is in."""

    @property
    def recipe(self) -> FinetuneRecipe:
        """Of every episode, and the one that the search starts from."""
        return replace(RECIPE, freeze_depth=self.freeze_depth)

    def engine(self, name: str) -> Engine:
        """An engine by its name, at the address unless it is this machine."""
        return Engine(name, "" if name == "local" else self.address)  # type: ignore[arg-type]


def tuner() -> Finetuner:
    """An untrained network on the embedded digits."""
    dataset = load_dataset("digits:target", SPEC.image_size)
    return Finetuner(build_backbone(SPEC, seed=0), SPEC, dataset, torch.device("cpu"))


def episodes_of(name: str, options: Options) -> Iterator[EpisodeResult]:
    """The first episodes of the embedded digits on one engine."""
    finetuner = tuner()
    pool = build_pool(finetuner.dataset, "report")
    episodes = (sample_episode(pool, SHAPE, 0, index) for index in range(options.n_episodes))
    return run_episodes(finetuner, episodes, options.recipe, options.workers, options.engine(name))


def time_engine(name: str, options: Options) -> list[float]:
    """Print an engine's row; returns the losses."""
    started = time.perf_counter()
    losses: list[float] = []
    moments = [started]
    for result in episodes_of(name, options):
        losses.append(result.loss)
        moments.append(time.perf_counter())
    n = options.n_episodes
    marks = [f"{moments[k] - started:7.1f}" for k in (1, n // 4, n // 2, n)]
    steady = (moments[n] - moments[n // 4]) / (n - n // 4)
    print(f"{name:<6} {' '.join(marks)} {1000 * steady:8.1f}", flush=True)
    return losses


def show_search(name: str, options: Options) -> None:
    """Print how long a search takes on an engine, and whether every trial's scores are those of this process."""
    finetuner = tuner()
    episodes = EpisodeScores(build_pool(finetuner.dataset, "search"), SHAPE, 0, range(EPISODES_OF_TRIAL))
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{Path(folder, 'studies.db')}"
        study = build_study(name, storage, 0)
        space = prepare_study(study, parse_space("max_lr+freeze_depth"), options.recipe, {})
        search = Search(name, storage, 0, space, options.recipe, episodes, Budget(options.n_trials))
        started = time.perf_counter()
        trials = list(search.run(finetuner, study, options.workers, options.engine(name)))
        seconds = time.perf_counter() - started
    with one_thread():
        equal = all(
            trial.scores == tuple(itertools.islice(episodes.score(finetuner, trial.recipe), len(trial.scores)))
            for trial in trials
            if trial.copy_of is None  # a copy has the record's scores, which are rounded
        )
    numbers = sorted(trial.number for trial in trials)
    n_spent = sum(len(trial.scores) for trial in trials)
    print(f"{name:<6} {len(trials)} trials, {n_spent} episodes in {seconds:.1f} s; each number once: ", end="")
    print(f"{numbers == list(range(options.n_trials))}; scores equal to the last bit: {equal}", flush=True)


def show_growth() -> None:
    """Print what grows with what, in bytes, which are exact, and in seconds of one core's time."""
    finetuner = tuner()
    dataset = finetuner.dataset
    pool = build_pool(dataset, "report")
    for n in (10, 20, 40):
        started = time.process_time()
        with one_thread():
            results = list(finetuner.run_episodes((sample_episode(pool, SHAPE, 1, i) for i in range(n)), RECIPE))
        print(f"{n} episodes: {1000 * (time.process_time() - started) / n:.0f} ms of a core each", flush=True)
    print(f"an episode, sent to a worker: {len(pickle.dumps(results[0].episode)):,} bytes")
    print(f"its result, sent back: {len(pickle.dumps(results[0])):,} bytes")
    print(f"{len(dataset.labels):,} images of {SPEC.image_size} px, sent once: {dataset.images.nbytes:,} bytes")
    with tempfile.TemporaryDirectory() as folder:
        save_backbone(finetuner.backbone, SPEC, Path(folder))
        print(f"the network, sent once: {sum(path.stat().st_size for path in Path(folder).iterdir()):,} bytes")
        append_journal(Path(folder, "journal"), results[0])
        print(f"a line of the journal: {Path(folder, 'journal').stat().st_size:,} bytes")
        show_records(Path(folder), 200)


def show_records(folder: Path, n: int) -> None:
    """Print what nested runs cost in a fresh SQLite store."""
    store = folder / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{store}")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("bench", (folder / "artifacts").as_uri()))
    with mlflow.start_run():
        for total in (n // 4, n // 2, n):
            runs, size, started = ChildRuns("episode"), store.stat().st_size, time.process_time()
            for index in range(total):
                metrics = {"query/accuracy": 0.5, "query/loss": 1.0}
                runs.add(FinishedRun(f"episode-{index}", 0, 1, metrics, {"seed": "0", "classes": "0, 1, 2"}))
            runs.close()
            each, grown = (time.process_time() - started) / total, (store.stat().st_size - size) / total
            print(f"{total} nested runs: {1000 * each:.1f} ms of a core and {grown:,.0f} bytes each", flush=True)


def run(options: Options) -> None:
    """Measure and print."""
    n = options.n_episodes
    if options.engines:
        print(f"seconds until the first, {n // 4}th, {n // 2}th and {n}th episode; ms for each after the {n // 4}th")
        names = options.engines.split(",")
        losses = {name: time_engine(name, options) for name in names}
        first = next(iter(losses.values()))
        print("equal to the last bit:", all(of_engine == first for of_engine in losses.values()))
        for name in names if options.n_trials else ():
            show_search(name, options)
    show_growth()


if __name__ == "__main__":
    run(tyro.cli(Options, use_underscores=True))
