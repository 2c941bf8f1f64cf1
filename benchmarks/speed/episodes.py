"""What does an episode cost, and does it score the same? Contenders side by side in one run, on the same episodes.

    make bench-episodes          (made pictures; DATA=EuroSAT.zip BACKBONE=folder of a pretrain run's backbone artifact)

The loop is the one that a tutorial writes: a data loader over the support images, the whole network at each of 200
steps of 13 images, the frozen part computed again and again. Ours runs all episodes as a user would, in as many
processes as there are cores; contenders that are slow run the first of them only. The last stage and the head are
fine-tuned with more and more steps, at the rate of a range test. The last line is the speed-up of the first that is no
worse than the loop by a point, going by the paired interval.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import torch
from joblib import cpu_count
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tl_core.compute.devices import pick_device
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.data.episodes import Episode, EpisodePool, build_pool, sample_episode
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.parallel import run_episodes
from tl_core.heads.storage import load_backbone
from tl_core.networks.backbones import BackboneSpec, build_backbone, n_features
from tl_core.networks.normalise import Normalise
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import estimate, paired_difference
from tl_core.views.fixed import to_float

LOOP_STEPS, LOOP_BATCH, LOOP_LR = 200, 13, 0.01
N_PROBED = 5000
N_BY_OTHERS = 50
N_RATE_TESTS, RATE_SEED = 3, 1
PROBE = FinetuneRecipe(freeze_depth=1.0)
LAST_STAGE = FinetuneRecipe(freeze_depth=0.8)
STEPS = (20, 40, 80, 160, 320)
MOST_WORSE = 0.01
"""Accuracy that a faster setting may lose to the loop, at the low end of the paired interval."""
WHOLE = FinetuneRecipe(freeze_depth=0.0, max_lr=1e-4, steps=20)

Score = Callable[[Episode], float]
"""From an episode to its accuracy."""


class Bench:
    """One network and one dataset, on which contenders are timed."""

    def __init__(self, data: str, backbone: str, cache: Path) -> None:
        spec = BackboneSpec("resnet10", 64)
        self.network, self.spec = load_backbone(Path(backbone)) if backbone else (build_backbone(spec, seed=0), spec)
        self.dataset: ImageDataset = load_dataset(data, self.spec.image_size, cache_dir=cache)
        self.pool: EpisodePool = build_pool(self.dataset, "all")
        self.shape = EpisodeShape(n_way=min(EpisodeShape().n_way, len(self.dataset.class_names)))

    def episodes(self, n: int) -> list[Episode]:
        """The first n episodes."""
        return [sample_episode(self.pool, self.shape, 0, index) for index in range(n)]

    def ours(self, recipe: FinetuneRecipe, episodes: Sequence[Episode]) -> tuple[list[float], float]:
        """Accuracies and seconds of our engine, with nothing computed before."""
        finetuner = Finetuner(self.network, self.spec, self.dataset, pick_device("auto"))
        started = time.perf_counter()
        results = run_episodes(finetuner, episodes, recipe, cpu_count())
        return [result.accuracy for result in results], time.perf_counter() - started

    def with_rate(self, recipe: FinetuneRecipe) -> FinetuneRecipe:
        """The recipe with the rate that range tests suggest, on episodes that nothing is scored on."""
        finetuner = Finetuner(self.network, self.spec, self.dataset, pick_device("auto"))
        others = [sample_episode(self.pool, self.shape, RATE_SEED, index) for index in range(N_RATE_TESTS)]
        supports = [(e.support_rows, e.support_labels, e.seed) for e in others]
        return finetuner.settle_max_lr(supports, replace(recipe, max_lr="auto"))

    def images(self, rows: Iterable[int]) -> Tensor:
        """float (n, 3, s, s), in [0, 1]."""
        return to_float(torch.from_numpy(self.dataset.images[np.asarray(rows)])).contiguous()

    @torch.no_grad()
    def features(self, rows: Iterable[int]) -> Tensor:
        """What the frozen network says of some images."""
        features: Tensor = nn.Sequential(Normalise(self.spec), self.network).eval()(self.images(rows))
        return features

    def by_loop(self, episode: Episode, trained: str) -> float:
        """The tutorial's loop; `trained` is in the names of the parameters that learn."""
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        torch.manual_seed(episode.seed)
        head = nn.Linear(n_features(self.network, self.spec), int(episode.support_labels.max()) + 1)
        model = nn.Sequential(Normalise(self.spec), self.network, head)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(trained in name)
        support = TensorDataset(self.images(episode.support_rows), torch.from_numpy(episode.support_labels))
        loader = DataLoader(support, LOOP_BATCH, shuffle=True)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LOOP_LR, momentum=0.9)
        step = 0
        model.eval()
        while step < LOOP_STEPS:
            for images, labels in loader:
                loss = nn.functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
        with torch.no_grad():
            predictions = model(self.images(episode.query_rows)).argmax(1).numpy()
        self.network.load_state_dict(before)
        self.network.requires_grad_(True)
        return float((predictions == episode.query_labels).mean())


def by_scikit_learn(support: Tensor, query: Tensor, episode: Episode) -> float:
    """Logistic regression of one episode, on features (n, d)."""
    centre = support.mean(0)
    scale = (support - centre).square().sum(1).mean().sqrt()
    c = 1 / (len(support) * PROBE.l2)
    judge = LogisticRegression(C=c, max_iter=1000).fit(((support - centre) / scale).numpy(), episode.support_labels)
    return float((judge.predict(((query - centre) / scale).numpy()) == episode.query_labels).mean())


def by_easyfsl(support: Tensor, query: Tensor, episode: Episode) -> float:
    """easyfsl's fine-tuned linear head of one episode, with its defaults, on features (n, d)."""
    from easyfsl.methods import Finetune

    method = Finetune(backbone=nn.Identity())
    method.process_support_set(support, torch.from_numpy(episode.support_labels))
    return float((method(query).detach().argmax(1).numpy() == episode.query_labels).mean())


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits:target")
    parser.add_argument("--backbone", default="", help="folder with a backbone's weights; by default untrained")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of the tutorial's loop")
    parser.add_argument("--scale", type=int, nargs="*", default=[100, 1000], help="numbers of linear-probe episodes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options.data, options.backbone, Path(scratch))
        print(
            f"{bench.spec.architecture}, {bench.spec.image_size} px, {options.data}, {bench.shape.n_way}-way, "
            f"{cpu_count()} cores\n"
        )
        _probing(bench)
        _scaling(bench, options.scale)
        few = bench.episodes(max(2, options.episodes // 5))
        _against_loop(bench, few, "the whole network", [WHOLE], trained="")
        episodes = bench.episodes(options.episodes)
        last_stage = bench.with_rate(LAST_STAGE)
        recipes = [replace(last_stage, steps=steps) for steps in STEPS]
        ratio = _against_loop(bench, episodes, "the last stage", recipes, trained="layer4")
    print(f"ratio: {ratio:.2f}")


def _probing(bench: Bench) -> None:
    episodes = bench.episodes(N_PROBED)
    scores, seconds = bench.ours(PROBE, episodes)
    few = episodes[:N_BY_OTHERS]
    known = [(bench.features(e.support_rows), bench.features(e.query_rows)) for e in few]
    finetuner = Finetuner(bench.network, bench.spec, bench.dataset, pick_device("auto"))
    list(run_episodes(finetuner, episodes, PROBE, 1))
    started = time.perf_counter()
    list(run_episodes(finetuner, episodes, PROBE, 1))
    warm = (time.perf_counter() - started) / len(episodes)
    print(f"linear probing, {len(episodes)} episodes for us, the first {len(few)} for the others")
    _line("ours, features included", scores, seconds / len(episodes))
    _line("ours, on features", scores, warm)
    _contender(
        "scikit-learn, features by the network",
        few,
        lambda e: by_scikit_learn(bench.features(e.support_rows), bench.features(e.query_rows), e),
        scores,
        seconds / len(episodes),
    )
    by_index = {episode.index: pair for episode, pair in zip(few, known, strict=True)}
    _contender("scikit-learn, on features", few, lambda e: by_scikit_learn(*by_index[e.index], e), scores, warm)
    if find_spec("easyfsl"):
        _contender("easyfsl's Finetune, on features", few, lambda e: by_easyfsl(*by_index[e.index], e), scores, warm)
    else:
        print("easyfsl is not installed: left out")
    print()


def _scaling(bench: Bench, numbers: Sequence[int]) -> None:
    for n in numbers:
        _, seconds = bench.ours(PROBE, bench.episodes(n))
        memory = psutil.Process(os.getpid()).memory_info().rss / 2**20
        print(f"{n:>7,} linear-probe episodes {seconds:9.1f} s {memory:9.0f} MiB resident")
    print()


def _against_loop(
    bench: Bench, episodes: Sequence[Episode], name: str, recipes: Sequence[FinetuneRecipe], trained: str
) -> float:
    """Print the loop and the recipes up to the first that is as good; returns its speed-up, NaN if there is none."""
    print(f"fine-tuning {name}, {len(episodes)} episodes")
    started = time.perf_counter()
    of_loop = [bench.by_loop(episode, trained) for episode in episodes]
    seconds_of_loop = (time.perf_counter() - started) / len(episodes)
    _line(f"loop: {LOOP_STEPS} steps of {LOOP_BATCH}", of_loop, seconds_of_loop)
    for recipe in recipes:
        scores, seconds = bench.ours(recipe, episodes)
        _line(f"ours: {recipe.steps} steps, rate {float(recipe.max_lr):.1e}", scores, seconds / len(episodes))
        ratio = _compare(scores, of_loop, seconds / len(episodes), seconds_of_loop)
        found = paired_difference(scores, of_loop)
        if found.mean - found.ci95 >= -MOST_WORSE:
            return ratio
    return math.nan


def _contender(name: str, episodes: Sequence[Episode], score: Score, ours: Sequence[float], our_seconds: float) -> None:
    started = time.perf_counter()
    scores = [score(episode) for episode in episodes]
    seconds = (time.perf_counter() - started) / len(episodes)
    _line(name, scores, seconds)
    _compare(ours[: len(scores)], scores, our_seconds, seconds)


def _compare(ours: Sequence[float], others: Sequence[float], our_seconds: float, seconds: float) -> float:
    difference = paired_difference(ours, others)
    gain = f"ours {100 * difference.mean:+.2f} +- {100 * difference.ci95:.2f} points on the same episodes"
    print(f"{'':42s} {gain}, {seconds / our_seconds:.1f} times as fast", flush=True)
    return seconds / our_seconds


def _line(name: str, scores: Sequence[float], seconds: float) -> None:
    print(f"{name:42s} {estimate(scores).percent():28s} {1000 * seconds:9.1f} ms", flush=True)


if __name__ == "__main__":
    main()
