"""Views: drawn per image, the same for the same seed, and still pictures afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tl_core.errors import InputError
from tl_core.views.augment import augment_batch
from tl_core.views.fixed import N_DIHEDRAL, dihedral_view, fixed_views, has_random_views, to_float

EVERY_OPERATION = ["flip", "dihedral", "crop", "colour", "crop+flip", "flip+dihedral+crop+colour"]


def random_images(n: int = 16, size: int = 12) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def equal_images(n: int = 32, size: int = 12) -> Tensor:
    return random_images(1, size).expand(n, -1, -1, -1).contiguous()


def augmented(images: Tensor, augment: str, seed: int = 0) -> Tensor:
    return augment_batch(images, augment, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("augment", EVERY_OPERATION)
def test_the_same_seed_gives_the_same_views(augment: str) -> None:
    assert torch.equal(augmented(random_images(), augment, seed=3), augmented(random_images(), augment, seed=3))


@pytest.mark.parametrize("augment", EVERY_OPERATION)
def test_another_seed_gives_other_views(augment: str) -> None:
    assert not torch.equal(augmented(random_images(), augment, seed=3), augmented(random_images(), augment, seed=4))


@pytest.mark.parametrize("augment", EVERY_OPERATION)
def test_the_global_random_state_is_neither_read_nor_moved(augment: str) -> None:
    before = torch.get_rng_state()
    augmented(random_images(), augment)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("augment", EVERY_OPERATION)
def test_values_stay_between_zero_and_one(augment: str) -> None:
    extremes = (random_images(64) > 0.5).float()
    view = augmented(extremes, augment)
    assert view.min() >= 0
    assert view.max() <= 1


@pytest.mark.parametrize("augment", EVERY_OPERATION)
def test_a_view_keeps_shape_and_type(augment: str) -> None:
    view = augmented(random_images(), augment)
    assert view.shape == random_images().shape
    assert view.dtype == torch.float32


@pytest.mark.parametrize("augment", EVERY_OPERATION)
def test_equal_images_in_one_batch_get_different_views(augment: str) -> None:
    views = augmented(equal_images(), augment)
    assert len(torch.unique(views, dim=0)) > 1


@pytest.mark.parametrize("augment", EVERY_OPERATION)
def test_the_given_images_stay_as_they_were(augment: str) -> None:
    images = random_images()
    augmented(images, augment)
    assert torch.equal(images, random_images())


def test_no_augmentation_is_the_identity() -> None:
    assert torch.equal(augmented(random_images(), "none"), random_images())


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(InputError, match="mixup"):
        augmented(random_images(), "mixup")


def test_view_zero_is_the_identity() -> None:
    assert torch.equal(dihedral_view(random_images(), 0), random_images())


def test_view_one_is_the_mirror_image() -> None:
    picture = torch.arange(9.0).view(1, 1, 3, 3)
    mirrored = torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 3.0], [8.0, 7.0, 6.0]])
    assert torch.equal(dihedral_view(picture, 1)[0, 0], mirrored)


def test_the_eight_views_of_an_asymmetric_picture_are_distinct() -> None:
    picture = torch.arange(9.0).view(1, 1, 3, 3)
    views = torch.cat([dihedral_view(picture, view) for view in range(N_DIHEDRAL)])
    assert N_DIHEDRAL == len(torch.unique(views, dim=0)) == 8


def test_a_flip_gives_each_image_or_its_mirror_image() -> None:
    images = random_images()
    views = augmented(images, "flip")
    kept = (views == images).flatten(1).all(1)
    mirrored = (views == dihedral_view(images, 1)).flatten(1).all(1)
    assert bool((kept ^ mirrored).all())


def test_random_dihedral_gives_all_eight_views_and_no_other() -> None:
    picture = torch.arange(9.0).view(1, 1, 3, 3) / 9
    allowed = torch.unique(torch.cat([dihedral_view(picture, view) for view in range(N_DIHEDRAL)]), dim=0)
    drawn = torch.unique(augmented(picture.expand(200, -1, -1, -1), "dihedral"), dim=0)
    assert torch.equal(drawn, allowed)


def test_a_crop_of_a_single_colour_is_that_colour() -> None:
    plain = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(8, 3, 12, 12).contiguous()
    torch.testing.assert_close(augmented(plain, "crop"), plain)


def test_a_crop_shows_a_part_and_never_the_outside() -> None:
    # A horizontal ramp: a crop keeps its direction and magnifies it, so that the slope falls and never grows.
    ramp = torch.linspace(0, 1, 32).expand(64, 3, 32, 32).contiguous()
    slope = augmented(ramp, "crop").diff(dim=3)[:, :, :, 2:-2]
    assert slope.min() > 0
    assert slope.max() <= 1 / 31 + 1e-5


def test_colour_keeps_the_order_of_the_channels() -> None:
    colours = torch.tensor([[0.6, 0.4, 0.2], [0.2, 0.6, 0.4], [0.4, 0.2, 0.6]]).repeat(20, 1)
    images = colours[:, :, None, None] + 0.1 * (random_images(60) - 0.5)
    means = augmented(images, "colour").mean(dim=(2, 3))
    assert torch.equal(means.argsort(1), colours.argsort(1))


@pytest.mark.parametrize(
    ("augment", "views"),
    [
        ("none", [0]),
        ("flip", [0, 1]),
        ("dihedral", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("flip+dihedral", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_fixed_views_are_listed(augment: str, views: list[int]) -> None:
    assert fixed_views(augment) == views
    assert not has_random_views(augment)


@pytest.mark.parametrize("augment", ["crop", "colour", "crop+flip"])
def test_crops_and_colours_are_random_views(augment: str) -> None:
    assert has_random_views(augment)


def test_bytes_become_fractions_with_channels_first() -> None:
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(to_float(pixels), torch.tensor([0, 0.2, 1]).view(1, 3, 1, 1))
