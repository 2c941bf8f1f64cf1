"""The training loop: golden losses, memorising, resuming, the best weights, and what must not move."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conftest import write_colour_images
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.data.splits import split_within_classes
from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.choices import Optimizer
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.training.loop import (
    Batches,
    TrainingDivergedError,
    TrainingState,
    fit,
    predict_logits,
    start_training,
)
from tl_core.training.optimizers import FitOptions
from tl_core.training.pretraining import Pretraining

CPU = torch.device("cpu")


def linear_model(n_inputs: int = 4, n_classes: int = 3) -> nn.Linear:
    """Weights that no random generator had a hand in."""
    model = nn.Linear(n_inputs, n_classes)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-0.3, 0.3, n_inputs * n_classes).view(n_classes, n_inputs))
        model.bias.copy_(torch.linspace(-0.1, 0.1, n_classes))
    return model


def norm_model(seed: int = 0) -> nn.Sequential:
    """A network with a batch norm: its buffers are state too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def numbered_batches(epoch: int, n_batches: int = 4, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng([1, epoch])
    return [
        (
            torch.from_numpy(rng.normal(size=(size, 4)).astype(np.float32)),
            torch.from_numpy(rng.integers(0, 3, size)),
        )
        for _ in range(n_batches)
    ]


def options(**changes: object) -> FitOptions:
    chosen = {"epochs": 3, "steps_per_epoch": 4, "max_lr": 0.1, "optimizer": "adamw", "weight_decay": 0.01, **changes}
    return FitOptions(**chosen)  # type: ignore[arg-type]


def losses_of(model: nn.Module, chosen: FitOptions, batches: Batches = numbered_batches) -> list[float]:
    return [metrics.loss for metrics in fit(start_training(model, chosen), batches, chosen)]


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# The labels are random, so that the loss need not fall; what counts is that it never changes.
GOLDEN: dict[Optimizer, list[float]] = {
    "sgd": [1.174611, 1.125668, 1.208020],
    "adam": [1.189234, 1.158263, 1.231073],
    "adamw": [1.189448, 1.157825, 1.235386],
}


@pytest.mark.parametrize("optimizer", list(GOLDEN))
def test_the_losses_are_the_golden_ones(optimizer: Optimizer) -> None:
    chosen = options(optimizer=optimizer, label_smoothing=0.1)
    assert losses_of(linear_model(), chosen) == pytest.approx(GOLDEN[optimizer], abs=1e-6)


def one_cycle_rate(step: int, total: int, peak: float) -> float:
    """The published one-cycle: peak / 25 up to peak in 30 % of the steps, then down to peak / 250,000, by cosines."""
    top, last = 0.3 * total - 1, total - 1
    start, end, share = (
        (peak / 25, peak, step / top) if step <= top else (peak, peak / 25e4, (step - top) / (last - top))
    )
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def test_sgd_is_nesterov_momentum_of_nine_tenths_worked_out_by_hand() -> None:
    peak, decay, total = 0.3, 0.01, 10
    batches = numbered_batches(0, n_batches=total)
    model = linear_model().double()
    weight, bias = model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()
    speed = [np.zeros_like(weight), np.zeros_like(bias)]
    by_hand = []
    for step, (inputs, labels) in enumerate(batches):
        points, truth = inputs.double().numpy(), np.eye(3)[labels.numpy()]
        logits = points @ weight.T + bias
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        by_hand.append(-np.log((shares * truth).sum(1)).mean())
        slope = (shares - truth) / len(labels)
        gradients = [slope.T @ points + decay * weight, slope.sum(0)]
        speed = [0.9 * s + g for s, g in zip(speed, gradients, strict=True)]
        rate = one_cycle_rate(step, total, peak)
        weight = weight - rate * (gradients[0] + 0.9 * speed[0])
        bias = bias - rate * (gradients[1] + 0.9 * speed[1])
    chosen = options(epochs=total, steps_per_epoch=1, max_lr=peak, optimizer="sgd", weight_decay=decay)
    double = [(inputs.double(), labels) for inputs, labels in batches]
    assert losses_of(model, chosen, lambda epoch: [double[epoch]]) == pytest.approx(by_hand, abs=1e-6)


def test_the_first_loss_of_a_model_of_zeros_is_the_logarithm_of_the_number_of_classes() -> None:
    model = nn.Linear(4, 7)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    chosen = options(epochs=1, steps_per_epoch=1)
    assert losses_of(model, chosen, lambda epoch: numbered_batches(epoch, 1)) == pytest.approx([math.log(7)], abs=1e-6)


def test_the_loss_is_the_cross_entropy_of_the_logits_and_not_of_their_softmax() -> None:
    # The identity as model, logits (2, 0, 0), true class 0: -log(e^2 / (e^2 + 2)) = log(1 + 2 e^-2) = 0.2395...
    # A softmax before the cross-entropy would give log(e^0.787 + 2 e^0.107) - 0.787 = 0.693.
    model = nn.Linear(3, 3, bias=False)
    nn.init.eye_(model.weight)
    batch = (torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
    chosen = options(epochs=1, steps_per_epoch=1)
    by_hand = math.log(1 + 2 * math.exp(-2))
    assert losses_of(model, chosen, lambda _: [batch]) == pytest.approx([by_hand], abs=1e-6)


def test_label_smoothing_spreads_the_target_over_the_classes() -> None:
    # Logits (2, 0, 0), smoothing 0.3: target (0.8, 0.1, 0.1); -log of the shares are c, c + 2, c + 2.
    model = nn.Linear(3, 3, bias=False)
    nn.init.eye_(model.weight)
    batch = (torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
    c = math.log(1 + 2 * math.exp(-2))
    chosen = options(epochs=1, steps_per_epoch=1, label_smoothing=0.3)
    assert losses_of(model, chosen, lambda _: [batch]) == pytest.approx([0.8 * c + 0.2 * (c + 2)], abs=1e-6)


def test_one_batch_is_memorised_whatever_its_labels() -> None:
    model = norm_model()
    inputs, labels = numbered_batches(0, 1, size=12)[0]
    chosen = options(epochs=1, steps_per_epoch=200, max_lr=0.05)
    list(fit(start_training(model, chosen), lambda _: [(inputs, labels)] * 200, chosen))
    logits = predict_logits(model.train(), [inputs])
    assert torch.equal(logits.argmax(1), labels)
    # Far below log(1 + 2 / e) = 0.55, which is the least that a softmax before the cross-entropy can reach.
    last = next(iter(fit(start_training(model, chosen), lambda _: [(inputs, labels)], chosen)))
    assert last.loss < 0.05
    assert last.accuracy == 1.0


def test_the_metrics_of_an_epoch_are_of_this_epoch_alone() -> None:
    model = linear_model()
    chosen = options(epochs=2, steps_per_epoch=1)
    seen = []
    for metrics in fit(start_training(model, chosen), lambda epoch: numbered_batches(epoch, 1), chosen):
        seen.append((metrics.epoch, metrics.images, metrics.loss))
        if metrics.epoch == 1:
            inputs, labels = numbered_batches(1, 1)[0]
            expected = float(F.cross_entropy(model(inputs).detach(), labels))
    assert [epoch for epoch, _, _ in seen] == [1, 2]
    assert [images for _, images, _ in seen] == [8, 8]
    assert seen[1][2] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_resumed_training_is_bit_identical_to_an_undisturbed_one(
    tmp_path: Path, optimizer: Optimizer, stop_after: int
) -> None:
    chosen = options(optimizer=optimizer)
    undisturbed = norm_model()
    expected = losses_of(undisturbed, chosen)

    state = start_training(norm_model(), chosen)
    losses = []
    for metrics in fit(state, numbered_batches, chosen):
        losses.append(metrics.loss)
        state.keep_if_best(-metrics.loss)
        state.save(tmp_path / "state.pt")
        if metrics.epoch == stop_after:
            break
    resumed = start_training(norm_model(seed=9), chosen)
    resumed.load(tmp_path / "state.pt")
    losses += [metrics.loss for metrics in fit(resumed, numbered_batches, chosen)]

    assert losses == expected
    assert same_state(resumed.model.state_dict(), undisturbed.state_dict())
    assert resumed.best_score == state.best_score
    assert same_state(resumed.best_weights, state.best_weights)


def test_saving_leaves_no_scratch_file(tmp_path: Path) -> None:
    start_training(linear_model(), options()).save(tmp_path / "state.pt")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["state.pt"]


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"epoch": _Bomb(tmp_path / "ran")}, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"cannot be read \(UnpicklingError\); delete it"):
        start_training(linear_model(), options()).load(tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()


def test_the_weights_with_the_best_score_are_kept_and_not_the_last_ones() -> None:
    chosen = options()
    state = start_training(norm_model(), chosen)
    weights = []
    for _, score in zip(fit(state, numbered_batches, chosen), (0.5, 0.9, 0.7), strict=True):
        state.keep_if_best(score)
        weights.append(copy_state(state.model))
    assert state.best_score == 0.9
    assert same_state(state.best_weights, weights[1])
    assert not same_state(state.best_weights, weights[2])


def test_of_equal_scores_the_first_is_kept() -> None:
    state = TrainingState(model := linear_model(), *_idle(model))
    state.keep_if_best(0.9)
    before = copy_state(model)
    nn.init.zeros_(model.weight)
    state.keep_if_best(0.9)
    assert same_state(state.best_weights, before)


def _idle(model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    started = start_training(model, options())
    return started.optimizer, started.scheduler


def test_divergence_names_the_step_and_the_learning_rate() -> None:
    def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
        good = numbered_batches(epoch)
        if epoch == 1:
            good[2] = (torch.full_like(good[2][0], math.inf), good[2][1])
        return good

    with pytest.raises(TrainingDivergedError, match=r"at step 3 of epoch 2 with max_lr=0\.1; give a lower max_lr"):
        losses_of(linear_model(), options(), batches)


def test_a_learning_rate_that_is_too_high_diverges_and_says_so() -> None:
    def batches(_: int) -> list[tuple[Tensor, Tensor]]:
        return [(inputs * 1e20, labels) for inputs, labels in numbered_batches(0)]

    with pytest.raises(InputError, match=r"the loss became (nan|inf) at step \d of epoch 1 with max_lr=100;"):
        losses_of(linear_model(), options(max_lr=100.0, optimizer="sgd"), batches)


def test_without_batch_statistics_the_batch_norm_buffers_are_bit_identical() -> None:
    model = norm_model()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    losses_of(model, options(batch_statistics=False))
    assert same_state(dict(model.named_buffers()), before)


def test_with_batch_statistics_the_batch_norm_buffers_are_learned() -> None:
    model = norm_model()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    losses_of(model, options(batch_statistics=True))
    assert all(not torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_and_norm_scales_are_not_decayed_and_weights_are(optimizer: Optimizer) -> None:
    plain, decayed = norm_model(), norm_model()
    # One step: the gradients are the same with and without decay.
    for model, weight_decay in ((plain, 0.0), (decayed, 0.5)):
        chosen = options(epochs=1, steps_per_epoch=1, optimizer=optimizer, weight_decay=weight_decay, max_lr=10.0)
        losses_of(model, chosen, lambda epoch: numbered_batches(epoch, 1))
    equal = {name: torch.equal(p, plain.get_parameter(name)) for name, p in decayed.named_parameters()}
    assert equal == {
        "0.weight": False,
        "0.bias": True,
        "1.weight": True,
        "1.bias": True,
        "3.weight": False,
        "3.bias": True,
    }


def test_frozen_parameters_do_not_reach_the_optimizer() -> None:
    model = norm_model()
    model[0].requires_grad_(False)
    before = copy_state(model[0])
    losses_of(model, options(weight_decay=1.0))
    assert same_state(copy_state(model[0]), before)


def test_predicting_twice_gives_the_same_answer_and_changes_nothing() -> None:
    model = norm_model().train()
    inputs = [inputs for inputs, _ in numbered_batches(0)]
    before = copy_state(model)
    assert torch.equal(predict_logits(model, inputs), predict_logits(model, inputs))
    assert same_state(copy_state(model), before)


def test_a_prediction_does_not_depend_on_its_batch() -> None:
    model = norm_model()
    inputs = torch.cat([inputs for inputs, _ in numbered_batches(0)])
    torch.testing.assert_close(predict_logits(model, [inputs]), predict_logits(model, inputs.split(1)))


SPEC = BackboneSpec("resnet10_small", 16)


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    return load_dataset(str(write_colour_images(tmp_path / "colours", n_per_class=10, size=16)), 16)


@functools.cache
def _built() -> nn.Module:
    return build_backbone(SPEC, seed=0)


def pretraining(dataset: ImageDataset, epochs: int = 3) -> Pretraining:
    recipe = PretrainRecipe(epochs=epochs, batch_size=8, max_lr=0.05, precision="float32")
    split = split_within_classes(dataset, val=0.3, test=0.2, seed=0)
    return Pretraining(copy.deepcopy(_built()), SPEC, dataset, split, recipe, seed=0)


def test_pretraining_ends_with_the_weights_that_were_best_on_validation(dataset: ImageDataset) -> None:
    job = pretraining(dataset)
    weights, scores = [], []
    for epoch in job.epochs(CPU):
        weights.append(copy_state(job.backbone))
        scores.append(epoch.val_accuracy)
    best = scores.index(max(scores))
    assert best < len(scores) - 1, "the last epoch is the best one: this run would not notice the fault"
    assert same_state(copy_state(job.backbone), weights[best])
    assert not same_state(copy_state(job.backbone), weights[-1])


def test_the_validation_accuracy_is_of_this_epochs_weights_and_not_an_average(dataset: ImageDataset) -> None:
    job = pretraining(dataset)
    rows = split_within_classes(dataset, val=0.3, test=0.2, seed=0).val
    for epoch in job.epochs(CPU):
        assert epoch.val_accuracy == job._score(job._model, rows, CPU, torch.float32)[1]


def test_interrupted_pretraining_continues_bit_identically(dataset: ImageDataset, tmp_path: Path) -> None:
    undisturbed = pretraining(dataset)
    expected = [epoch.training.loss for epoch in undisturbed.epochs(CPU)]
    checkpoint = tmp_path / "state.pt"
    next(iter(pretraining(dataset).epochs(CPU, checkpoint)))  # killed after its first epoch
    resumed = pretraining(dataset)
    losses = [epoch.training.loss for epoch in resumed.epochs(CPU, checkpoint)]
    assert losses == expected  # the first epoch, which the checkpoint remembers, included
    assert same_state(copy_state(resumed.backbone), copy_state(undisturbed.backbone))


def test_pretraining_learns_the_colours(dataset: ImageDataset) -> None:
    job = pretraining(dataset, epochs=6)
    list(job.epochs(CPU))
    assert job.test_accuracy(CPU) == 1.0


def test_a_constant_schedule_keeps_the_rate_and_whoever_lowers_it_is_heard() -> None:
    chosen = options(epochs=3, steps_per_epoch=2, schedule="constant", max_lr=0.1)
    state = start_training(linear_model(), chosen)
    rates = []
    for metrics in fit(state, lambda epoch: numbered_batches(epoch, 2), chosen):
        rates.append(metrics.lr)
        for group in state.optimizer.param_groups:
            group["lr"] = 0.01
    assert rates == pytest.approx([0.1, 0.01, 0.01])


def test_a_frozen_batch_norm_keeps_its_statistics_though_others_learn() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    frozen, learned = model[0].running_mean.clone(), model[1].running_mean.clone()
    chosen = options(epochs=1, steps_per_epoch=3)
    list(fit(start_training(model, chosen), lambda epoch: numbered_batches(epoch, 3), chosen))
    assert torch.equal(model[0].running_mean, frozen)
    assert not torch.equal(model[1].running_mean, learned)
