"""Domain shifts: what is changed, and that it is changed for all images alike."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tl_core.fewshot.test_finetuner import NOISE
from tl_core.data.shifts import shift_images
from tl_core.errors import InputError


def test_none_is_the_dataset_itself() -> None:
    assert shift_images(NOISE, "none", 0) is NOISE


def test_colour_exchanges_the_channels() -> None:
    shifted = shift_images(NOISE, "colour", 0).images
    assert np.array_equal(shifted[..., 1], NOISE.images[..., 0])
    assert np.array_equal(np.sort(shifted, axis=3), np.sort(NOISE.images, axis=3))


def test_turn_gives_each_image_one_of_four_turns() -> None:
    shifted = shift_images(NOISE, "turn", 0).images
    turns = [
        [k for k in range(4) if np.array_equal(image, np.rot90(before, k))]
        for image, before in zip(shifted, NOISE.images, strict=True)
    ]
    assert all(len(found) == 1 for found in turns)
    assert {found[0] for found in turns} == {0, 1, 2, 3}


def test_resolution_leaves_the_mean_of_four_pixels() -> None:
    shifted = shift_images(NOISE, "resolution", 0).images
    assert np.array_equal(shifted[0, 0, 0], NOISE.images[0, :2, :2].reshape(4, 3).mean(0).round())
    assert np.array_equal(shifted[:, 0::2, 0::2], shifted[:, 1::2, 1::2])


def test_the_original_is_left_alone_and_the_fingerprint_is_another() -> None:
    before = NOISE.images.copy()
    prints = {shift_images(NOISE, shift, 0).fingerprint for shift in ("colour", "turn", "colour+turn")}
    assert len(prints | {NOISE.fingerprint, shift_images(NOISE, "turn", 1).fingerprint}) == 5
    assert np.array_equal(NOISE.images, before)


def test_an_unknown_shift_is_refused() -> None:
    with pytest.raises(InputError, match=r"shift is 'turn\+blur'; allowed is none, or colour, turn, resolution"):
        shift_images(NOISE, "turn+blur", 0)
