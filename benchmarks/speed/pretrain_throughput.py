"""How much of the model's own speed does pretraining reach? All contenders side by side, in one process, taking turns.

    make bench-pretrain          (made pictures; DATA=folder for a folder of class folders)

The bound is the same model, loop and precision on one batch that is already in memory and never changes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tl_core.compute.devices import pick_device, pick_dtype
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.data.splits import split_within_classes
from tl_core.networks.backbones import BackboneSpec, build_backbone, n_features
from tl_core.networks.normalise import Normalise
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.training.loop import fit, start_training
from tl_core.training.optimizers import FitOptions
from tl_core.training.pretraining import Pretraining

ROUNDS = 3
N_CLASSES, N_PER_CLASS = 16, 96
BATCH = 128


def main() -> None:
    """Measure and print the table; its last line is the ratio of our throughput to the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="folder of class folders; by default pictures are made")
    parser.add_argument("--backbone", default="resnet10_fine")
    parser.add_argument("--image-size", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.data) if options.data else _make_pictures(Path(scratch, "pictures"))
        dataset = load_dataset(str(folder), options.image_size, cache_dir=Path(scratch, "cache"))
        spec = BackboneSpec(options.backbone, options.image_size)
        contenders: dict[str, Callable[[], float]] = {
            "bound: one batch in memory": lambda: _bound(spec, dataset),
            "ours: cache, views, training": lambda: _ours(spec, dataset),
            "torchvision ImageFolder + DataLoader": lambda: _plain(spec, folder),
        }
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for _, (name, run) in itertools.product(range(ROUNDS), contenders.items()):
            speeds[name].append(run())
    median = {name: statistics.median(values) for name, values in speeds.items()}
    bound, ours, plain = median.values()
    print(f"{options.backbone}, {options.image_size} px, batches of {BATCH}, median of {ROUNDS} rounds")
    for name, speed in median.items():
        print(f"{name:40s} {speed:8.0f} images/s")
    print(f"ours over the plain loop: {ours / plain:.2f}")
    print(f"ratio: {ours / bound:.3f}")


def _make_pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in range(N_CLASSES):
        (folder / f"class{label:02d}").mkdir(parents=True)
        for index in range(N_PER_CLASS):
            coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((84, 84), Image.Resampling.BICUBIC)
            picture.save(folder / f"class{label:02d}" / f"{index:03d}.jpg", quality=90)
    return folder


def _recipe() -> PretrainRecipe:
    return PretrainRecipe(epochs=1, batch_size=BATCH, max_lr=0.05)


def _model(spec: BackboneSpec, n_classes: int) -> nn.Module:
    backbone = build_backbone(spec, seed=0)
    head = nn.Linear(n_features(backbone, spec), n_classes)
    return nn.Sequential(Normalise(spec), backbone, head).to(memory_format=torch.channels_last)


def _train(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], n_steps: int) -> float:
    recipe, device = _recipe(), pick_device("auto")
    dtype = pick_dtype(recipe.precision, device, model)
    options = FitOptions(1, n_steps, recipe.max_lr, "sgd", recipe.weight_decay, recipe.label_smoothing, dtype=dtype)
    (metrics,) = fit(start_training(model.to(device), options), lambda _: batches, options)
    return metrics.images / metrics.seconds


def _bound(spec: BackboneSpec, dataset: ImageDataset) -> float:
    device = pick_device("auto")
    images = torch.rand(BATCH, 3, spec.image_size, spec.image_size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH, device=device) % len(dataset.class_names)
    n_steps = max(2, int(0.8 * len(dataset.labels)) // BATCH)
    return _train(_model(spec, len(dataset.class_names)), itertools.repeat((images, labels), n_steps), n_steps)


def _ours(spec: BackboneSpec, dataset: ImageDataset) -> float:
    split = split_within_classes(dataset, 0.1, 0.1, seed=0)
    training = Pretraining(build_backbone(spec, seed=0), spec, dataset, split, _recipe(), seed=0)
    (epoch,) = training.epochs(pick_device("auto"))
    return epoch.training.images / epoch.training.seconds


def _plain(spec: BackboneSpec, folder: Path) -> float:
    """The loop that a tutorial writes: decode and augment each image in worker processes, float32."""
    from torchvision import datasets, transforms

    views = transforms.Compose(
        [
            transforms.RandomResizedCrop(spec.image_size, scale=(0.35, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    images = datasets.ImageFolder(str(folder), views)
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, num_workers=2, drop_last=True)
    model = _model(spec, len(images.classes)).to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    objective = nn.CrossEntropyLoss(label_smoothing=0.1)
    started, seen, limit = time.perf_counter(), 0, int(0.8 * len(images))
    for inputs, labels in loader:
        if seen + BATCH > limit:
            break
        loss = objective(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += BATCH
    return seen / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
