"""Classifiers of runs, with the samples that their export is checked on."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from pipelines.inputs.artifacts import (
    CLASSIFIER_ARTIFACT,
    LEARNED_ARTIFACT,
    N_SAMPLES,
    SAMPLE_FILES_ARTIFACT,
    SAMPLES_ARTIFACT,
)
from serving.model import HASH_BYTES
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
    """Write some of the rows' images into a folder, decoded and as files, and which files all of them are."""
    hashes = sorted(bytes.fromhex(dataset.content_hashes[row])[:HASH_BYTES] for row in rows)
    (folder / LEARNED_ARTIFACT).write_bytes(base64.b64encode(b"".join(hashes)))
    samples = np.sort(np.random.default_rng(seed).permutation(rows)[:N_SAMPLES])
    np.savez_compressed(folder / SAMPLES_ARTIFACT, images=dataset.images[samples])
    names = [dataset.file_names[row] for row in samples]
    copy_files(dataset.name, names, folder / SAMPLE_FILES_ARTIFACT, class_level=dataset.class_level)
