"""What episodes, images and records cost as they become more, and what an engine costs on the same cores.

    python -m benchmarks.engines --engines local,ray,dask

The numbers of docs/scale.md. Every engine has the same number of workers on this machine; the answers are compared to
the last bit. A first batch of episodes is not timed: it starts the workers and sends them what they need.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from tl_core.backbones import BackboneSpec, build_backbone
from tl_core.datasets import copy_files, load_dataset
from tl_core.episodes import build_pool, sample_episode
from tl_core.finetune import EpisodeResult, Finetuner
from tl_core.parallel import run_episodes
from tl_core.recipes import Engine, EpisodeShape, FinetuneRecipe

SPEC = BackboneSpec("resnet10_small", 32)
RECIPE = FinetuneRecipe(freeze_depth=0.5, steps=10)
SHAPE = EpisodeShape(5, 5, 15)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    engines: str = "local"
    """Engines, with commas between."""
    n_episodes: int = 600
    """Episodes for each engine; a quarter and a half of them are timed too."""
    workers: int = 2
    """Workers of each engine."""


def episodes_of(n: int, engine: Engine, workers: int) -> Iterator[EpisodeResult]:
    """The first n episodes of the embedded digits on one engine."""
    dataset = load_dataset("digits:target", SPEC.image_size)
    pool = build_pool(dataset, "report")
    finetuner = Finetuner(build_backbone(SPEC, seed=0), SPEC, dataset, torch.device("cpu"))
    return run_episodes(finetuner, (sample_episode(pool, SHAPE, 0, i) for i in range(n)), RECIPE, workers, engine)


def time_engine(name: str, options: Options) -> list[float]:
    """Print an engine's row; returns the losses."""
    started = time.perf_counter()
    losses: list[float] = []
    moments = [started]
    for result in episodes_of(options.n_episodes, Engine(name), options.workers):  # type: ignore[arg-type]
        losses.append(result.loss)
        moments.append(time.perf_counter())
    n = options.n_episodes
    marks = [f"{moments[k] - started:7.1f}" for k in (1, n // 4, n // 2, n)]
    steady = (moments[n] - moments[n // 4]) / (n - n // 4)
    print(f"{name:<6} {' '.join(marks)} {1000 * steady:8.1f}", flush=True)
    return losses


def time_records(n: int) -> None:
    """Print what a nested run costs in a fresh SQLite store."""
    import mlflow

    from pipelines.child_runs import ChildRuns, FinishedRun

    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("bench", Path(folder, "artifacts").as_uri()))
        with mlflow.start_run():
            for total in (n // 4, n // 2, n):
                runs = ChildRuns("episode")
                started = time.perf_counter()
                for index in range(total):
                    metrics = {"query/accuracy": 0.5, "query/loss": 1.0}
                    runs.add(FinishedRun(f"episode-{index}", started, started + 1, metrics, {"seed": "0"}))
                runs.close()
                print(f"{total} nested runs: {1000 * (time.perf_counter() - started) / total:.1f} ms each", flush=True)


def time_cache() -> None:
    """Print what decoding costs, and what the cache takes."""
    with tempfile.TemporaryDirectory() as folder:
        names = load_dataset("digits:target", SPEC.image_size).file_names
        for n in (len(names) // 4, len(names) // 2, len(names)):
            archive = Path(folder, f"{n}.zip")
            # Every k-th, so that all classes are there.
            copy_files("digits:target", names[:: len(names) // n], archive)
            started = time.perf_counter()
            dataset = load_dataset(str(archive), SPEC.image_size, cache_dir=Path(folder, str(n)))
            each = (time.perf_counter() - started) / len(dataset.labels)
            print(
                f"{len(dataset.labels)} images: {1e6 * each:.0f} us each, {dataset.images.nbytes:,} bytes", flush=True
            )


def run(options: Options) -> None:
    """Measure and print."""
    n = options.n_episodes
    print(f"seconds until the first, {n // 4}th, {n // 2}th and {n}th episode; ms for each after the {n // 4}th")
    losses = {name: time_engine(name, options) for name in options.engines.split(",")}
    first = next(iter(losses.values()))
    print("equal to the last bit:", all(of_engine == first for of_engine in losses.values()))
    time_records(400)
    time_cache()


if __name__ == "__main__":
    run(tyro.cli(Options, use_underscores=True))
