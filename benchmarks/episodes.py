"""What does an episode cost, and does it score the same? Contenders side by side on the same episodes, taking turns.

    make bench-episodes          (made pictures; DATA=EuroSAT.zip BACKBONE=folder of a pretrain run's backbone artifact)

The first line is the loop that a tutorial writes: a data loader over the support images, the whole network at each
of 200 steps of 13 images, the frozen part computed again and again. The last line is the first line's speed-up.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tl_core.augment import to_float
from tl_core.backbones import BackboneSpec, build_backbone, n_features
from tl_core.classifier import Normalise, load_backbone
from tl_core.datasets import ImageDataset, load_dataset
from tl_core.devices import pick_device
from tl_core.episodes import Episode, build_pool, sample_episode
from tl_core.finetune import Finetuner
from tl_core.recipes import EpisodeShape, FinetuneRecipe
from tl_core.scoring import estimate, paired_difference

LOOP_STEPS, LOOP_BATCH, LOOP_LR = 200, 13, 0.01
LAST_STAGE = 0.8

Score = Callable[[Episode], float]
"""From an episode to its accuracy."""


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits:target")
    parser.add_argument("--backbone", default="", help="folder with a backbone's weights; by default untrained")
    parser.add_argument("--episodes", type=int, default=20)
    options = parser.parse_args()
    spec = BackboneSpec("resnet10", 64)
    network = build_backbone(spec, seed=0)
    if options.backbone:
        network, spec = load_backbone(Path(options.backbone))
    with tempfile.TemporaryDirectory() as scratch:
        dataset = load_dataset(options.data, spec.image_size, cache_dir=Path(scratch))
        pool = build_pool(dataset, "all")
        episodes = [sample_episode(pool, EpisodeShape(), 0, index) for index in range(options.episodes)]
        tuned = FinetuneRecipe(freeze_depth=LAST_STAGE, max_lr=3e-4, precision="auto")
        print(f"{spec.architecture}, {spec.image_size} px, {options.data}, {options.episodes} episodes\n")
        probe_ratio = _table(
            episodes,
            {
                "scikit-learn, features by the network": lambda e: _by_scikit_learn(network, spec, dataset, e),
                "ours: linear probing": _ours(network, spec, dataset, FinetuneRecipe(), episodes),
            },
        )
        print(f"linear probing: {probe_ratio:.1f} times\n")
        ratio = _table(
            episodes,
            {
                "loop: whole network, 200 steps of 13": lambda e: _by_loop(network, spec, dataset, e),
                "ours: last stage and head": _ours(network, spec, dataset, tuned, episodes),
            },
        )
        print(f"ratio: {ratio:.2f}")


def _table(episodes: Sequence[Episode], contenders: dict[str, Score]) -> float:
    """Run the contenders in turns, print what they score and cost; returns how much faster the second one is."""
    scores: dict[str, list[float]] = {name: [] for name in contenders}
    seconds = dict.fromkeys(contenders, 0.0)
    for episode in episodes:
        for name, score in contenders.items():
            started = time.perf_counter()
            scores[name].append(score(episode))
            seconds[name] += time.perf_counter() - started
    for name in contenders:
        print(f"{name:42s} {estimate(scores[name]).percent():28s} {1000 * seconds[name] / len(episodes):9.1f} ms")
    first, second = contenders
    difference = paired_difference(scores[second], scores[first])
    print(f"{'difference on the same episodes':42s} {100 * difference.mean:+.2f} +- {100 * difference.ci95:.2f} points")
    return seconds[first] / seconds[second]


def _ours(
    network: nn.Module, spec: BackboneSpec, dataset: ImageDataset, recipe: FinetuneRecipe, episodes: Sequence[Episode]
) -> Score:
    """All episodes are run at the first one's turn, as a user would run them: its time is the time of them all."""
    finetuner = Finetuner(network, spec, dataset, pick_device("auto"))
    scores: dict[int, float] = {}

    def score(episode: Episode) -> float:
        if not scores:
            scores.update((r.episode.index, r.accuracy) for r in finetuner.run_episodes(episodes, recipe))
        return scores[episode.index]

    return score


def _images(dataset: ImageDataset, rows: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(dataset.images[rows])).contiguous()


def _by_scikit_learn(network: nn.Module, spec: BackboneSpec, dataset: ImageDataset, episode: Episode) -> float:
    model = nn.Sequential(Normalise(spec), network).eval()
    with torch.no_grad():
        support, query = (model(_images(dataset, rows)).numpy() for rows in (episode.support_rows, episode.query_rows))
    centre = support.mean(0)
    scale = np.sqrt(np.square(support - centre).sum(1).mean())
    c = 1 / (len(support) * FinetuneRecipe().l2)
    judge = LogisticRegression(C=c, max_iter=1000).fit((support - centre) / scale, episode.support_labels)
    return float((judge.predict((query - centre) / scale) == episode.query_labels).mean())


def _by_loop(network: nn.Module, spec: BackboneSpec, dataset: ImageDataset, episode: Episode) -> float:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(episode.seed)
    head = nn.Linear(n_features(network, spec), int(episode.support_labels.max()) + 1)
    model = nn.Sequential(Normalise(spec), network, head)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("layer4" in name)
    support = TensorDataset(_images(dataset, episode.support_rows), torch.from_numpy(episode.support_labels))
    loader = DataLoader(support, LOOP_BATCH, shuffle=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LOOP_LR, momentum=0.9)
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
        predictions = model(_images(dataset, episode.query_rows)).argmax(1).numpy()
    network.load_state_dict(before)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return float((predictions == episode.query_labels).mean())


if __name__ == "__main__":
    main()
