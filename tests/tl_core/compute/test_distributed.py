"""Two processes that train together are one process that trains on the whole batch."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

from tests.conftest import free_port, write_colour_images
from tl_core.compute.distributed import ALONE, World, join_world, share_statistics
from tl_core.data.dataset import load_dataset
from tl_core.data.splits import split_within_classes
from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.training.pretraining import Pretraining

CPU = torch.device("cpu")
SPEC = BackboneSpec("resnet10_small", 16)
RECIPE = PretrainRecipe(
    epochs=2, batch_size=8, max_lr=0.01, precision="float32", augment="crop+flip+colour", rotation=0.5
)


def pretraining(data: Path, world: World, recipe: PretrainRecipe = RECIPE) -> Pretraining:
    dataset = load_dataset(str(data), 16, cache_dir=data.parent / "cache")
    split = split_within_classes(dataset, val=0.2, test=0.2, seed=0)
    return Pretraining(build_backbone(SPEC, seed=0), SPEC, dataset, split, recipe, seed=0, world=world)


def losses_and_weights(data: Path, world: World) -> tuple[list[tuple[float, float, int]], torch.Tensor]:
    job = pretraining(data, world)
    curve = [(e.training.loss, e.val_accuracy, e.training.images) for e in job.epochs(CPU)]
    return curve, torch.cat([value.flatten().float() for value in job.backbone.state_dict().values()])


def worker(rank: int, data: Path, port: int) -> None:
    import os

    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with join_world(CPU) as world:
        torch.save(losses_and_weights(data, world), data.parent / f"rank{rank}.pt")


@pytest.mark.timeout(300)
def test_two_processes_give_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    data = write_colour_images(tmp_path / "colours", n_per_class=14, size=16)
    curve, weights = losses_and_weights(data, ALONE)
    multiprocessing.spawn(worker, (data, free_port()), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for other_curve, other_weights in ranks:
        for mine, other in zip(curve, other_curve, strict=True):
            assert other[0] == pytest.approx(mine[0], rel=1e-3)
            assert other[1:] == mine[1:]
        torch.testing.assert_close(other_weights, weights, rtol=1e-2, atol=1e-3)
    assert torch.equal(ranks[0][1], ranks[1][1])


def resume_worker(rank: int, data: Path, port: int) -> None:
    """Train the first epoch of one training, and continue another that one process has begun."""
    import os

    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with join_world(CPU) as world:
        next(pretraining(data, world).epochs(CPU, data.parent / "by-two.pt"))
        torch.save(curve_of(pretraining(data, world), data.parent / "by-one.pt"), data.parent / f"continued{rank}.pt")


def curve_of(job: Pretraining, checkpoint: Path | None = None) -> list[tuple[float, float]]:
    return [(epoch.training.loss, epoch.val_accuracy) for epoch in job.epochs(CPU, checkpoint)]


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_training_continues_in_another_number_of_processes(tmp_path: Path) -> None:
    data = write_colour_images(tmp_path / "colours", n_per_class=14, size=16)
    undisturbed = curve_of(pretraining(data, ALONE))
    next(pretraining(data, ALONE).epochs(CPU, tmp_path / "by-one.pt"))
    multiprocessing.spawn(resume_worker, (data, free_port()), nprocs=2)
    continued_by_one = curve_of(pretraining(data, ALONE), tmp_path / "by-two.pt")
    continued_by_two = [torch.load(tmp_path / f"continued{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert len(undisturbed) == RECIPE.epochs
    for curve in (continued_by_one, *continued_by_two):
        for (loss, accuracy), (expected, expected_accuracy) in zip(curve, undisturbed, strict=True):
            assert loss == pytest.approx(expected, rel=1e-3)
            assert accuracy == expected_accuracy


@pytest.mark.parametrize("architecture", ["test_efficientnet", "resnet10_small", "regnetx_002", "densenet121"])
@pytest.mark.parametrize("training", [True, False])
def test_a_network_with_shared_norms_is_the_same_network(architecture: str, training: bool) -> None:
    """Norms with an activation of their own too, as timm's EfficientNet, RegNet and DenseNet have."""
    plain = build_backbone(BackboneSpec(architecture, 32), seed=0)
    shared = share_statistics(copy.deepcopy(plain))
    kinds = {type(module).__name__ for module in shared.modules() if isinstance(module, nn.BatchNorm2d)}
    assert kinds == {"_SharedBatchNorm2d"}
    assert [name for name, _ in shared.named_parameters()] == [name for name, _ in plain.named_parameters()]
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = [network.train(training)(images) for network in (plain, shared)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-2, atol=1e-3)
    states = [network.state_dict() for network in (plain, shared)]
    torch.testing.assert_close(states[1], states[0], rtol=1e-2, atol=1e-3)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    data = write_colour_images(tmp_path / "colours", n_per_class=14, size=16)
    with pytest.raises(InputError, match="expected batch_size as a multiple of the number of processes, 3, got 8"):
        pretraining(data, World(0, 3))


def test_without_torchrun_a_process_is_alone() -> None:
    with join_world(CPU) as world:
        assert world == World(rank=0, size=1)
        assert world.leads
