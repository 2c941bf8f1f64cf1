"""Domain shifts: other pictures made of the same ones, to search on where the target may not be touched."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from tl_core.data.dataset import ImageDataset
from tl_core.errors import InputError

SHIFTS = ("colour", "turn", "resolution")


def parse_shifts(shifts: str) -> tuple[str, ...]:
    """Split `"turn+resolution"` into its parts; `"none"` is the empty tuple.

    Raises:
        InputError: a part that is not in `SHIFTS`.
    """
    names = () if shifts == "none" else tuple(shifts.split("+"))
    for name in names:
        if name not in SHIFTS:
            raise InputError(f"shift is {shifts!r}; allowed is none, or {', '.join(SHIFTS)} joined by +")
    return names


def shift_images(dataset: ImageDataset, shifts: str, seed: int) -> ImageDataset:
    """The dataset with every image changed in the same way; it has a fingerprint of its own.

    `colour` exchanges the channels, `turn` gives each image a quarter turn of its own, `resolution` halves it and
    enlarges it again.
    """
    names = parse_shifts(shifts)
    if not names:
        return dataset
    images = np.array(dataset.images)
    if "colour" in names:
        images = images[..., [2, 0, 1]]
    if "turn" in names:
        turns = np.random.default_rng(seed).integers(0, 4, len(images))
        for turn in range(1, 4):
            images[turns == turn] = np.rot90(images[turns == turn], turn, axes=(1, 2))
    if "resolution" in names:
        images = np.stack([_halve_and_enlarge(image) for image in images])
    fingerprint = hashlib.sha256(f"{dataset.fingerprint}:{'+'.join(sorted(names))}:{seed}".encode()).hexdigest()
    return replace(dataset, images=images, fingerprint=fingerprint)


def _halve_and_enlarge(image: np.ndarray) -> np.ndarray:
    """uint8 (s, s, 3) to the same shape; the mean of 2 x 2 pixels takes their place."""
    size = len(image) // 2 * 2
    blocks = image[:size, :size].reshape(size // 2, 2, size // 2, 2, 3).mean((1, 3))
    enlarged = blocks.round().astype(np.uint8).repeat(2, 0).repeat(2, 1)
    out = image.copy()
    out[:size, :size] = enlarged
    return out
