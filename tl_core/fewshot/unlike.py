"""Class means of a fitted classifier, and the similarity below which an image looks like none of its classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tl_core.fewshot.finetuner import Finetuner
from tl_core.heads.classifier import Classifier
from tl_core.heads.features import image_features
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.unlike import (
    KnownClasses,
    class_means,
    group_folds,
    know_classes,
    similarity,
    unlike_threshold,
)

ENOUGH = 40
"""Images held out after which no further fold is fine-tuned: each takes about as long as the fit itself."""


def know_fitted_classes(
    finetuner: Finetuner, classifier: Classifier, recipe: FinetuneRecipe, seed: int
) -> KnownClasses:
    """Compute class means and threshold of a classifier that was fitted to all images of the finetuner's dataset.

    Frozen features are known without their labels, and folds of them are enough. A backbone that was fine-tuned on
    images has brought them nearer to their class means than it brings new ones (a threshold from them refused up to
    half of the new images), so that it is fine-tuned again, without the images of a fold.
    """
    dataset = finetuner.dataset
    features = image_features(classifier, dataset.images, finetuner.device)
    folds = group_folds(dataset.labels, dataset.near_duplicates, seed=seed)
    known = know_classes(features, dataset.labels, folds)
    if not finetuner.trains_backbone(recipe):
        return known
    return replace(known, unlike_below=unlike_threshold(_refitted_similarity(finetuner, recipe, folds[0], seed)))


def _refitted_similarity(
    finetuner: Finetuner, recipe: FinetuneRecipe, fold: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Similarity of images to the class means of classifiers that were fitted without them: (n,), of some folds."""
    dataset, device = finetuner.dataset, finetuner.device
    labels, n_classes = dataset.labels, len(dataset.class_names)
    found = np.empty(0)
    for number in np.unique(fold):
        kept, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(found) >= ENOUGH or len(np.unique(labels[kept])) < n_classes:
            continue
        # The temperature is of no concern here, and finding it takes as many trainings again.
        classifier = finetuner.fit_classifier(kept, replace(recipe, temperature="none"), seed)
        of_kept, of_held = (image_features(classifier, dataset.images, device, rows) for rows in (kept, held))
        found = np.append(found, similarity(of_held, class_means(of_kept, labels[kept], n_classes)))
    return found
