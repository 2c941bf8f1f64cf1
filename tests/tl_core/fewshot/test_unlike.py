"""Class means and threshold of a fitted classifier: never from images that its backbone was fine-tuned on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import write_colour_images
from tl_core.data.dataset import load_dataset
from tl_core.fewshot import unlike
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.unlike import know_fitted_classes
from tl_core.heads.features import image_features
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.unlike import class_means, group_folds, know_classes, similarity, unlike_threshold

SPEC = BackboneSpec("resnet10_small", 16)
CPU = torch.device("cpu")
FROZEN, TUNED = FinetuneRecipe(freeze_depth=1.0), FinetuneRecipe(freeze_depth=0.5, steps=3, max_lr=1e-3)


@pytest.fixture
def finetuner(tmp_path: Path) -> Finetuner:
    data = load_dataset(str(write_colour_images(tmp_path / "colours", n_per_class=6)), 16)
    return Finetuner(build_backbone(SPEC, seed=0), SPEC, data, CPU)


def test_on_a_frozen_backbone_folds_of_its_features_are_enough(finetuner: Finetuner) -> None:
    classifier, data = finetuner.fit_classifier(np.arange(18), FROZEN, 0), finetuner.dataset
    known = know_fitted_classes(finetuner, classifier, FROZEN, 0)
    features = image_features(classifier, data.images, CPU)
    expected = know_classes(features, data.labels, group_folds(data.labels, data.near_duplicates))
    np.testing.assert_array_equal(known.means, expected.means)
    assert known.unlike_below == expected.unlike_below


@pytest.mark.parametrize("enough", [100, 4])
def test_a_fine_tuned_backbone_is_fine_tuned_again_without_the_images_of_a_fold(
    finetuner: Finetuner, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlike, "ENOUGH", enough)
    classifier, data = finetuner.fit_classifier(np.arange(18), TUNED, 0), finetuner.dataset
    known = know_fitted_classes(finetuner, classifier, TUNED, 0)
    by_hand: list[float] = []
    fold = group_folds(data.labels, data.near_duplicates)[0]
    for number in range(5):
        if len(by_hand) < enough:
            fitted = finetuner.fit_classifier(np.flatnonzero(fold != number), TUNED, 0)
            features = image_features(fitted, data.images, CPU)
            means = class_means(features[fold != number], data.labels[fold != number], 3)
            by_hand += similarity(features[fold == number], means).tolist()
    assert len(by_hand) == (18 if enough == 100 else 4)
    assert known.unlike_below == pytest.approx(unlike_threshold(np.array(by_hand)), abs=1e-5)
    fitted_means = class_means(image_features(classifier, data.images, CPU), data.labels, 3)
    np.testing.assert_allclose(known.means, fitted_means, atol=1e-6)


def test_whether_the_backbone_is_trained_depends_on_depth_and_steps(finetuner: Finetuner) -> None:
    recipes = (TUNED, FROZEN, replace(TUNED, steps=0))
    assert [finetuner.trains_backbone(recipe) for recipe in recipes] == [True, False, False]
