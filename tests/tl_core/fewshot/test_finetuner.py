"""Fine-tuning: it memorises, it starts afresh every time, and its answers are those of the classifier it hands over."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.data.episodes import Episode, build_pool, sample_episode
from tl_core.errors import DataWarning
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.results import EpisodeResult
from tl_core.fewshot.support import RANDOM_VIEWS
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.choices import Priors
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.recipes.heads import few_shot_heads

SIZE = 16
PIXELS = BackboneSpec("pixels", SIZE)
# Strange on purpose: a second normalisation, or none, changes which class mean is the nearest.
UNEVEN = BackboneSpec("pixels", SIZE, mean=(0.2, 0.5, 0.8), std=(0.05, 0.5, 2.0))
RESNET = BackboneSpec("resnet10_small", SIZE)
SHAPE = EpisodeShape(n_way=3, n_shot=4, n_query=6)

LINEAR_PROBE = FinetuneRecipe(freeze_depth=1.0, steps=20)
HALF = FinetuneRecipe(freeze_depth=0.5, steps=3, max_lr=1e-3)
FULL = FinetuneRecipe(freeze_depth=0.0, steps=3, max_lr=1e-3)
DIVERGING = FinetuneRecipe(freeze_depth=0.0, steps=10, max_lr=100.0, optimizer="sgd")


@pytest.fixture
def pictures(colours: Path) -> ImageDataset:
    return load_dataset(str(colours), SIZE)


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def noise_dataset(n_classes: int = 4, n_per_class: int = 12, size: int = SIZE) -> ImageDataset:
    """Pictures without any meaning: no method finds their classes, so that answers differ between methods."""
    n = n_classes * n_per_class
    return ImageDataset(
        name="noise",
        class_names=tuple("abcdefgh"[:n_classes]),
        images=np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8),
        labels=np.repeat(np.arange(n_classes), n_per_class),
        file_names=tuple(str(i) for i in range(n)),
        content_hashes=tuple(f"{i:064x}" for i in range(n)),
        fingerprint="f" * 64,
        unreadable=(),
        decoded=0,
    )


NOISE = noise_dataset()


def draw(dataset: ImageDataset, n: int, shape: EpisodeShape = SHAPE) -> list[Episode]:
    pool = build_pool(dataset, "all")
    return [sample_episode(pool, shape, seed=0, index=index) for index in range(n)]


@functools.cache
def _built(spec: BackboneSpec) -> nn.Module:
    return build_backbone(spec, seed=0)


def fresh_backbone(spec: BackboneSpec) -> nn.Module:
    return copy.deepcopy(_built(spec))


def tuner(spec: BackboneSpec, dataset: ImageDataset = NOISE) -> Finetuner:
    return Finetuner(fresh_backbone(spec), spec, dataset, torch.device("cpu"))


def run(finetuner: Finetuner, episodes: Sequence[Episode], recipe: FinetuneRecipe) -> list[EpisodeResult]:
    return list(finetuner.run_episodes(episodes, recipe))


def answers(result: EpisodeResult) -> tuple[float, float, list[int]]:
    """All that a result says, but for how long it took."""
    return result.accuracy, result.loss, result.predictions.tolist()


def ask_the_support(episode: Episode, support_labels: NDArray[np.int64]) -> Episode:
    return replace(episode, support_labels=support_labels, query_rows=episode.support_rows, query_labels=support_labels)


@pytest.mark.parametrize(
    ("spec", "recipe"),
    [
        (PIXELS, FinetuneRecipe(freeze_depth=1.0, l2=1e-3)),
        (RESNET, FinetuneRecipe(freeze_depth=0.0, steps=40, max_lr=3e-3)),
    ],
    ids=["pixels", "resnet10_small"],
)
def test_a_support_set_with_meaningless_labels_is_memorised(spec: BackboneSpec, recipe: FinetuneRecipe) -> None:
    episode = draw(NOISE, 1)[0]
    shuffled = np.random.default_rng(1).permutation(episode.support_labels)
    (result,) = run(tuner(spec), [ask_the_support(episode, shuffled)], recipe)
    assert result.accuracy == 1.0
    # A softmax before the cross-entropy could not come below log(1 + 2 / e) = 0.55.
    assert result.loss < 0.1


def test_the_same_labels_are_not_memorised_without_training() -> None:
    episode = draw(NOISE, 1)[0]
    shuffled = np.random.default_rng(1).permutation(episode.support_labels)
    (result,) = run(tuner(RESNET), [ask_the_support(episode, shuffled)], replace(FULL, steps=0, head="prototypes"))
    assert result.accuracy < 1.0


@pytest.mark.parametrize("augment", ["none", "flip", "dihedral", "crop", "crop+flip+colour"])
@pytest.mark.parametrize("head", few_shot_heads())
def test_pixels_tell_colours_apart_under_every_augmentation(pictures: ImageDataset, augment: str, head: str) -> None:
    recipe = replace(LINEAR_PROBE, augment=augment, head=head)
    results = run(tuner(PIXELS, pictures), draw(pictures, 2), recipe)
    assert min(result.accuracy for result in results) > 0.95


@pytest.mark.parametrize("augment", ["none", "crop", "dihedral"])
def test_an_untrained_network_learns_colours_by_full_fine_tuning(pictures: ImageDataset, augment: str) -> None:
    recipe = FinetuneRecipe(freeze_depth=0.0, steps=10, max_lr=1e-3, augment=augment)
    (result,) = run(tuner(RESNET, pictures), draw(pictures, 1), recipe)
    assert result.accuracy > 0.95


RECIPES = [
    pytest.param(PIXELS, replace(LINEAR_PROBE, augment="crop"), id="pixels-crop"),
    pytest.param(RESNET, replace(HALF, augment="dihedral"), id="half-dihedral"),
    pytest.param(RESNET, replace(FULL, augment="crop"), id="full-crop"),
    pytest.param(RESNET, replace(HALF, head="cosine", optimizer="sgd"), id="half-cosine-sgd"),
]


@pytest.mark.parametrize(("spec", "recipe"), RECIPES)
def test_the_same_seed_gives_the_same_answers_to_the_last_bit(spec: BackboneSpec, recipe: FinetuneRecipe) -> None:
    episodes = draw(NOISE, 2)
    first, second = (run(tuner(spec), episodes, recipe) for _ in range(2))
    assert [answers(result) for result in first] == [answers(result) for result in second]


@pytest.mark.parametrize(("spec", "recipe"), RECIPES)
def test_an_episode_gives_the_same_answers_whatever_ran_before_it(spec: BackboneSpec, recipe: FinetuneRecipe) -> None:
    episodes = draw(NOISE, 3)
    after_others = run(tuner(spec), episodes, recipe)[-1]
    (alone,) = run(tuner(spec), episodes[-1:], recipe)
    if recipe.freeze_depth < 1:
        assert answers(after_others) == answers(alone)
    else:  # solved together until the slowest has converged
        assert np.array_equal(after_others.predictions, alone.predictions)
        assert after_others.loss == pytest.approx(alone.loss, rel=1e-3)


@pytest.mark.parametrize("recipe", [HALF, FULL], ids=["half", "full"])
def test_running_an_episode_twice_gives_the_same_answers(recipe: FinetuneRecipe) -> None:
    finetuner, episodes = tuner(RESNET), draw(NOISE, 1)
    assert answers(run(finetuner, episodes, recipe)[0]) == answers(run(finetuner, episodes, recipe)[0])


@pytest.mark.parametrize("freeze_depth", [0.3, 0.5, 0.8, 1.0])
def test_a_recipe_gives_the_same_answers_after_one_that_trained_deeper(freeze_depth: float) -> None:
    episodes, recipe = draw(NOISE, 1), replace(HALF, freeze_depth=freeze_depth)
    finetuner = tuner(RESNET)
    run(finetuner, episodes, FULL)
    assert answers(run(finetuner, episodes, recipe)[0]) == answers(run(tuner(RESNET), episodes, recipe)[0])


def test_images_first_seen_after_a_deeper_recipe_get_the_original_activations() -> None:
    before, later = draw(NOISE, 2)
    finetuner = tuner(RESNET)
    run(finetuner, [before], HALF)
    run(finetuner, [before], FULL)
    assert answers(run(finetuner, [later], HALF)[0]) == answers(run(tuner(RESNET), [later], HALF)[0])


def test_full_fine_tuning_gives_the_same_answers_after_other_recipes() -> None:
    episodes = draw(NOISE, 1)
    finetuner = tuner(RESNET)
    for recipe in (HALF, LINEAR_PROBE):
        run(finetuner, episodes, recipe)
    assert answers(run(finetuner, episodes, FULL)[0]) == answers(run(tuner(RESNET), episodes, FULL)[0])


def test_a_classifier_fitted_after_episodes_is_the_one_fitted_alone() -> None:
    rows, images = np.arange(len(NOISE.labels)), torch.from_numpy(NOISE.images)
    busy = tuner(RESNET)
    run(busy, draw(NOISE, 1), FULL)
    first, second = (finetuner.fit_classifier(rows, HALF, seed=3) for finetuner in (busy, tuner(RESNET)))
    with torch.no_grad():
        assert torch.equal(first(images), second(images))


@pytest.mark.parametrize("recipe", [LINEAR_PROBE, HALF, FULL], ids=["probe", "half", "full"])
def test_a_finetuner_stays_usable_after_fitting_a_classifier(recipe: FinetuneRecipe) -> None:
    rows, images, episodes = np.arange(len(NOISE.labels)), torch.from_numpy(NOISE.images), draw(NOISE, 1)
    finetuner = tuner(RESNET)
    before = copy_state(finetuner.backbone)
    classifier, again = (finetuner.fit_classifier(rows, recipe, seed=3) for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in finetuner.backbone.state_dict().items())
    with torch.no_grad():
        logits = classifier(images)
        assert torch.equal(again(images), logits)
    for later in (LINEAR_PROBE, HALF, FULL):
        assert answers(run(finetuner, episodes, later)[0]) == answers(run(tuner(RESNET), episodes, later)[0])
    with torch.no_grad():
        assert torch.equal(classifier(images), logits)


def test_a_classifier_that_diverges_leaves_the_finetuner_usable() -> None:
    finetuner, episodes = tuner(RESNET), draw(NOISE, 1)
    with pytest.warns(DataWarning, match="was taken back"):
        finetuner.fit_classifier(np.arange(30), DIVERGING, seed=0)
    assert answers(run(finetuner, episodes, HALF)[0]) == answers(run(tuner(RESNET), episodes, HALF)[0])


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    before = torch.get_rng_state()
    run(tuner(RESNET), draw(NOISE, 1), replace(HALF, augment="crop"))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_of_the_episode_draws_other_views() -> None:
    (episode,) = draw(NOISE, 1)
    recipe = replace(LINEAR_PROBE, augment="crop")
    first, other = run(tuner(PIXELS), [episode, replace(episode, seed=episode.seed ^ 1)], recipe)
    assert first.loss != other.loss


def test_labels_and_predictions_are_those_of_the_dataset() -> None:
    for result in run(tuner(PIXELS), draw(NOISE, 4), LINEAR_PROBE):
        assert np.array_equal(result.labels, NOISE.labels[result.episode.query_rows])
        assert set(result.predictions.tolist()) <= set(result.episode.class_ids)


def test_the_accuracy_is_the_share_of_right_answers_of_the_final_network() -> None:
    for result in run(tuner(PIXELS), draw(NOISE, 4), LINEAR_PROBE):
        assert result.accuracy == (result.labels == result.predictions).mean()


def test_results_come_in_the_order_of_the_episodes() -> None:
    episodes = draw(NOISE, 3)
    assert [result.episode.index for result in run(tuner(PIXELS), episodes[::-1], LINEAR_PROBE)] == [2, 1, 0]


def pixel_features(rows: NDArray[np.int64], spec: BackboneSpec, dataset: ImageDataset = NOISE) -> NDArray[np.float64]:
    """By hand: scaled, normalised once, averaged to 8 x 8, channels first."""
    scaled = (dataset.images[rows] / 255 - np.array(spec.mean)) / np.array(spec.std)
    grid = scaled.reshape(len(rows), 8, SIZE // 8, 8, SIZE // 8, 3).mean(axis=(2, 4))
    return grid.transpose(0, 3, 1, 2).reshape(len(rows), -1)


def test_a_prototype_head_is_the_nearest_class_mean_worked_out_by_hand() -> None:
    episodes = draw(NOISE, 10)
    results = run(tuner(UNEVEN), episodes, replace(LINEAR_PROBE, head="prototypes"))
    for episode, result in zip(episodes, results, strict=True):
        support = pixel_features(episode.support_rows, UNEVEN)
        means = np.stack([support[episode.support_labels == way].mean(0) for way in range(SHAPE.n_way)])
        queries = pixel_features(episode.query_rows, UNEVEN)
        distances = ((queries[:, None] - means[None]) ** 2).sum(2)
        assert np.array_equal(result.predictions, np.array(episode.class_ids)[distances.argmin(1)])


class RowRecorder:
    """Counts the images that go through a module, and remembers them; the blank ones that fill a batch up are none."""

    def __init__(self, module: nn.Module) -> None:
        self.rows: list[Tensor] = []
        module.register_forward_pre_hook(self._record)

    def _record(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.rows.extend(image.clone() for image in inputs[0].detach() if image.std((1, 2)).any())

    def unique(self) -> int:
        return len(torch.unique(torch.stack(self.rows), dim=0))


def recorded_tuner(spec: BackboneSpec, layer: str = "") -> tuple[Finetuner, RowRecorder]:
    backbone = fresh_backbone(spec)
    finetuner = Finetuner(backbone, spec, NOISE, torch.device("cpu"))
    return finetuner, RowRecorder(backbone.get_submodule(layer))


@pytest.mark.parametrize(
    ("spec", "layer", "recipe"),
    [(PIXELS, "", LINEAR_PROBE), (RESNET, "conv1", LINEAR_PROBE), (RESNET, "conv1", HALF)],
    ids=["pixels", "probe", "half"],
)
@pytest.mark.parametrize(("augment", "n_views"), [("none", 1), ("flip", 2), ("dihedral", 8)])
def test_the_frozen_part_sees_each_image_and_view_at_most_once(
    spec: BackboneSpec, layer: str, recipe: FinetuneRecipe, augment: str, n_views: int
) -> None:
    finetuner, recorder = recorded_tuner(spec, layer)
    for _ in range(2):
        run(finetuner, draw(NOISE, 3), replace(recipe, augment=augment, steps=1))
    assert 0 < len(recorder.rows) <= len(NOISE.images) * n_views
    assert recorder.unique() == len(recorder.rows)


def test_query_images_are_never_augmented_and_support_images_are() -> None:
    finetuner, recorder = recorded_tuner(UNEVEN)
    episode = draw(NOISE, 1)[0]
    run(finetuner, [episode], replace(LINEAR_PROBE, augment="crop"))
    seen = torch.stack(recorder.rows)

    def times_seen_as_it_is(row: int) -> int:
        scaled = torch.from_numpy(NOISE.images[row]).permute(2, 0, 1) / 255
        normalised = (scaled - torch.tensor(UNEVEN.mean).view(3, 1, 1)) / torch.tensor(UNEVEN.std).view(3, 1, 1)
        return int((seen - normalised).abs().flatten(1).amax(1).lt(1e-5).sum())

    rows = [*episode.query_rows.tolist(), *episode.support_rows.tolist()]
    assert [times_seen_as_it_is(row) for row in rows] == [1] * len(rows)
    # All the rest is what an augmentation made: random views of each support image.
    assert len(seen) == len(rows) + (RANDOM_VIEWS - 1) * len(episode.support_rows)


def recorded_training(dataset: ImageDataset) -> tuple[Finetuner, list[Tensor]]:
    """A finetuner, and what enters the last depth group while it is trained: a tensor for each step."""
    backbone = fresh_backbone(RESNET)
    steps: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            steps.append(inputs[0].detach().clone())

    backbone.get_submodule("layer4.0.conv1").register_forward_pre_hook(record)
    return Finetuner(backbone, RESNET, dataset, torch.device("cpu")), steps


def test_each_step_sees_every_support_image_once() -> None:
    finetuner, steps = recorded_training(NOISE)
    run(finetuner, draw(NOISE, 1), replace(HALF, freeze_depth=0.8, steps=3))
    assert [len(torch.unique(batch, dim=0)) for batch in steps] == [SHAPE.n_way * SHAPE.n_shot] * 3
    assert [len(batch) for batch in steps] == [SHAPE.n_way * SHAPE.n_shot] * 3


def test_more_images_than_a_batch_holds_are_all_seen_equally_often() -> None:
    dataset = noise_dataset(n_classes=3, n_per_class=64)
    finetuner, steps = recorded_training(dataset)
    finetuner.fit_classifier(np.arange(192), replace(HALF, freeze_depth=0.8, steps=3), seed=0)
    # 192 images make two batches of at most 128, hence twice the 3 steps: 6 * 128 = 4 * 192.
    assert [len(batch) for batch in steps] == [128] * 6
    _, counts = torch.unique(torch.cat(steps), dim=0, return_counts=True)
    assert counts.tolist() == [4] * 192


@pytest.mark.parametrize(
    ("spec", "recipe"),
    [(PIXELS, LINEAR_PROBE), (RESNET, replace(HALF, max_lr=1e-3, steps=10))],
    ids=["pixels", "half"],
)
def test_a_fitted_classifier_is_right_on_its_training_images(
    pictures: ImageDataset, spec: BackboneSpec, recipe: FinetuneRecipe
) -> None:
    rows = np.arange(len(pictures.labels))
    classifier = tuner(spec, pictures).fit_classifier(rows, recipe, seed=0)
    assert not classifier.training
    with torch.no_grad():
        logits = classifier(torch.from_numpy(pictures.images[rows]))
    assert logits.shape == (60, 3)
    assert np.array_equal(logits.argmax(1).numpy(), pictures.labels)


@pytest.mark.parametrize(
    ("spec", "recipe"), [(UNEVEN, LINEAR_PROBE), (RESNET, HALF), (RESNET, FULL)], ids=["probe", "half", "full"]
)
def test_the_classifier_answers_as_the_network_that_was_scored(spec: BackboneSpec, recipe: FinetuneRecipe) -> None:
    rows = np.arange(0, len(NOISE.labels), 2)
    queries = np.arange(1, len(NOISE.labels), 2)
    episode = Episode(0, (0, 1, 2, 3), rows, NOISE.labels[rows], queries, NOISE.labels[queries], seed=7)
    (scored,) = run(tuner(spec), [episode], recipe)
    classifier = tuner(spec).fit_classifier(rows, recipe, seed=7)
    with torch.no_grad():
        logits = classifier(torch.from_numpy(NOISE.images[queries]))
    assert np.array_equal(logits.argmax(1).numpy(), scored.predictions)
    assert float(F.cross_entropy(logits, torch.from_numpy(NOISE.labels[queries]))) == pytest.approx(
        scored.loss, rel=1e-4
    )


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("max_lr", [100.0, 1.0], ids=["not finite", "finite"])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_an_episode_whose_loss_grows_keeps_the_head_of_the_start(head: str, max_lr: float, together: int) -> None:
    episodes, recipe = draw(NOISE, 2), replace(DIVERGING, head=head, max_lr=max_lr)
    found = list(tuner(RESNET).run_episodes(episodes, recipe, together))
    solved = run(tuner(RESNET), episodes, replace(recipe, steps=0))
    assert [result.fell_back for result in found] == [True, True]
    for one, other in zip(found, solved, strict=True):
        assert one.predictions.tolist() == other.predictions.tolist()
        assert one.loss == pytest.approx(other.loss, rel=1e-3)


@pytest.mark.parametrize("together", [1, 2])
def test_an_episode_whose_loss_falls_keeps_its_steps(together: int) -> None:
    episodes = draw(NOISE, 2)
    found = list(tuner(RESNET).run_episodes(episodes, FULL, together))
    solved = run(tuner(RESNET), episodes, replace(FULL, steps=0))
    assert [result.fell_back for result in found] == [False, False]
    assert found[0].loss != solved[0].loss


@pytest.mark.parametrize("recipe", [HALF, FULL], ids=["half", "full"])
def test_a_diverged_episode_leaves_no_trace(recipe: FinetuneRecipe) -> None:
    finetuner, episodes = tuner(RESNET), draw(NOISE, 1)
    assert run(finetuner, episodes, DIVERGING)[0].fell_back
    assert answers(run(finetuner, episodes, recipe)[0]) == answers(run(tuner(RESNET), episodes, recipe)[0])


@pytest.mark.parametrize("recipe", [LINEAR_PROBE, HALF], ids=["probe", "half"])
def test_with_test_views_a_turned_query_gets_the_same_answer(recipe: FinetuneRecipe) -> None:
    turned = replace(NOISE, images=np.ascontiguousarray(np.rot90(NOISE.images, axes=(1, 2))))
    support, query = np.arange(0, 48, 2), np.arange(1, 48, 2)
    both = replace(recipe, test_views="dihedral", augment="dihedral")
    for images in (NOISE, turned):
        classifier = tuner(RESNET, images).fit_classifier(support, both, seed=0)
        with torch.no_grad():
            answer = classifier(torch.from_numpy(np.ascontiguousarray(NOISE.images[query])))
            of_turned = classifier(torch.from_numpy(np.ascontiguousarray(turned.images[query])))
        torch.testing.assert_close(answer, of_turned, rtol=1e-3, atol=1e-3)


def test_a_probe_is_solved_with_smoothed_labels() -> None:
    episodes = draw(NOISE, 2)
    sharp, smooth = (run(tuner(PIXELS), episodes, replace(LINEAR_PROBE, label_smoothing=s)) for s in (0.0, 0.4))
    for one, other in zip(sharp, smooth, strict=True):
        assert other.confidences.mean() < one.confidences.mean() - 0.05


@pytest.mark.parametrize("recipe", [LINEAR_PROBE, HALF], ids=["probe", "half"])
@pytest.mark.parametrize(("priors", "expected"), [("balanced", [0.5, 0.5]), ("data", [0.75, 0.25])])
def test_an_image_that_says_nothing_is_as_probably_of_a_class_as_the_priors_say(
    priors: Priors, expected: list[float], recipe: FinetuneRecipe
) -> None:
    uneven = replace(noise_dataset(2, 10), labels=np.repeat([0, 1], [15, 5]))
    recipe = replace(recipe, temperature="cv", l2=1e6, max_lr=1e-6)  # nothing but the bias is left to learn
    classifier = tuner(RESNET, uneven).fit_classifier(np.arange(20), recipe, 0, priors)
    probabilities = classifier(torch.from_numpy(uneven.images)).detach().softmax(1)
    np.testing.assert_allclose(probabilities, np.tile(expected, (20, 1)), atol=0.02)


@pytest.mark.parametrize("n_per_class", [5, 12])
def test_the_penalty_of_a_fit_is_a_prior_that_its_images_outweigh(n_per_class: int) -> None:
    noise, l2 = noise_dataset(n_per_class=n_per_class), 1e-2
    rows = np.arange(len(noise.labels))
    head = tuner(PIXELS, noise).fit_classifier(rows, FinetuneRecipe(l2=l2), seed=0).head
    points = (torch.from_numpy(pixel_features(rows, PIXELS, noise)).float() - head.centre) / head.scale
    # sklearn's penalty stands beside a sum over the images, and does not depend on their number.
    judge = LogisticRegression(C=1 / (25 * l2), tol=1e-8, max_iter=10_000).fit(points.numpy(), noise.labels)
    mine, its = head.weight.detach().numpy(), judge.coef_
    np.testing.assert_allclose(mine - mine.mean(0), its - its.mean(0), atol=1e-3)


def test_the_fitted_classifier_answers_as_the_episode_does() -> None:
    (episode,) = draw(NOISE, 1)
    recipe = replace(LINEAR_PROBE, test_views="dihedral", augment="dihedral")
    (result,) = run(tuner(RESNET), [episode], recipe)
    renumbered = np.full(len(NOISE.labels), -1)
    renumbered[episode.support_rows] = episode.support_labels
    own = replace(NOISE, labels=renumbered)
    classifier = tuner(RESNET, own).fit_classifier(episode.support_rows, recipe, seed=0)
    with torch.no_grad():
        predictions = classifier(torch.from_numpy(NOISE.images[episode.query_rows])).argmax(1).numpy()
    assert np.array_equal(np.array(episode.class_ids)[predictions], result.predictions)


def support(episode: Episode) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    return episode.support_rows, episode.support_labels, episode.seed


def test_auto_settles_on_the_geometric_mean_of_the_range_tests() -> None:
    finetuner, episodes = tuner(RESNET), draw(NOISE, 2)
    auto = replace(HALF, max_lr="auto")
    rates = [float(finetuner.settle_max_lr([support(episode)], auto).max_lr) for episode in episodes]
    settled = finetuner.settle_max_lr([support(episode) for episode in episodes], auto)
    assert rates[0] != rates[1]
    assert settled.max_lr == pytest.approx(math.sqrt(rates[0] * rates[1]))
    assert replace(settled, max_lr=HALF.max_lr) == HALF


def test_range_tests_leave_no_trace() -> None:
    (episode,) = draw(NOISE, 1)
    fresh = run(tuner(RESNET), [episode], HALF)
    tested = tuner(RESNET)
    tested.settle_max_lr([support(episode)], replace(HALF, max_lr="auto"))
    assert answers(run(tested, [episode], HALF)[0]) == answers(fresh[0])


@pytest.mark.parametrize("recipe", [LINEAR_PROBE, replace(HALF, steps=0)])
def test_auto_tests_nothing_where_nothing_is_trained(recipe: FinetuneRecipe) -> None:
    settled = tuner(RESNET).settle_max_lr([], replace(recipe, max_lr="auto"))
    assert settled == replace(recipe, max_lr=FinetuneRecipe().max_lr)


@pytest.mark.parametrize("recipe", [LINEAR_PROBE, HALF], ids=["probe", "half"])
def test_a_temperature_changes_confidences_and_no_answer(recipe: FinetuneRecipe) -> None:
    episodes = draw(NOISE, 2)
    plain, divided = (run(tuner(RESNET), episodes, replace(recipe, temperature=how)) for how in ("none", "cv"))
    for one, other in zip(plain, divided, strict=True):
        assert one.predictions.tolist() == other.predictions.tolist()
        # Meaningless pictures: an honest judge is far less sure.
        assert other.confidences.mean() < one.confidences.mean()


@pytest.mark.parametrize("recipe", [LINEAR_PROBE, HALF], ids=["probe", "half"])
def test_the_fitted_classifier_has_the_temperature_that_was_scored(recipe: FinetuneRecipe) -> None:
    (episode,) = draw(NOISE, 1)
    recipe = replace(recipe, temperature="cv")
    (scored,) = run(tuner(RESNET), [episode], recipe)
    own = replace_labels(NOISE, episode)
    classifier = tuner(RESNET, own).fit_classifier(episode.support_rows, recipe, episode.seed)
    with torch.no_grad():
        probabilities = classifier(torch.from_numpy(NOISE.images[episode.query_rows])).softmax(1)
    assert probabilities.amax(1).numpy() == pytest.approx(scored.confidences, abs=1e-4)


def replace_labels(dataset: ImageDataset, episode: Episode) -> ImageDataset:
    """The dataset with the episode's labels on the episode's support."""
    labels = dataset.labels.copy()
    labels[episode.support_rows] = episode.support_labels
    return replace(dataset, labels=labels)


def test_features_move_by_fine_tuning_only_where_something_is_trained() -> None:
    (episode,) = draw(NOISE, 1)
    finetuner = tuner(RESNET)
    before, none = finetuner.features_around(episode, LINEAR_PROBE)
    assert none is None
    unmoved, after = finetuner.features_around(episode, HALF)
    assert after is not None
    assert before.shape == after.shape == (len(episode.support_rows) + len(episode.query_rows), 256)
    assert unmoved == pytest.approx(before, abs=1e-5)
    assert not np.allclose(after, before, atol=1e-3)
    again, _ = finetuner.features_around(episode, HALF)
    assert (again == unmoved).all()  # the network is as it was
