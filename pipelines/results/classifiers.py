"""Classifiers of runs, with the samples that their export is checked on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.inputs.artifacts import CLASSIFIER_ARTIFACT, N_SAMPLES, SAMPLE_FILES_ARTIFACT, SAMPLES_ARTIFACT
from tl_core.data.dataset import ImageDataset, copy_files
from tl_core.data.splits import Indices
from tl_core.heads.classifier import Classifier, ClassifierDescription
from tl_core.heads.storage import save_classifier


def save_for_export(
    classifier: Classifier,
    description: ClassifierDescription,
    dataset: ImageDataset,
    rows: Indices,
    seed: int,
    folder: Path,
) -> None:
    """Write a classifier into a folder, with some of the images that it was fitted to: decoded, and as files."""
    save_classifier(classifier, description, folder / CLASSIFIER_ARTIFACT)
    save_samples(dataset, rows, seed, folder)


def save_samples(dataset: ImageDataset, rows: Indices, seed: int, folder: Path) -> None:
    """Write some of the rows' images into a folder: decoded, and as files."""
    samples = np.sort(np.random.default_rng(seed).permutation(rows)[:N_SAMPLES])
    np.savez_compressed(folder / SAMPLES_ARTIFACT, images=dataset.images[samples])
    names = [dataset.file_names[row] for row in samples]
    copy_files(dataset.name, names, folder / SAMPLE_FILES_ARTIFACT, class_level=dataset.class_level)
