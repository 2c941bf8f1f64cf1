"""Side of the training views in each epoch."""

from __future__ import annotations

import numpy as np

from tl_core.errors import InputError

_GROWTH_SHARE = 2 / 3
_SIZE_STEP = 16


def view_sizes(start_size: int, image_size: int, epochs: int) -> list[int]:
    """Side of the training views in each epoch: growing first, then full.

    Growing is progressive resizing (Tan and Le, 2021).

    Args:
        start_size: the first epoch's side in pixels; 0 is the full one throughout.
        image_size: the full side in pixels.

    Raises:
        InputError: the start is larger than the full side.
    """
    if start_size > image_size:
        raise InputError(f"expected start_size of at most image_size, {image_size}, got {start_size}; lower it")
    if start_size == 0:
        return [image_size] * epochs
    growing = min(epochs, max(1, round(_GROWTH_SHARE * epochs)))
    grown = np.linspace(start_size, image_size, growing + 1)[:-1]
    # In steps, because each new shape costs the first step a while.
    sizes = [start_size + int((side - start_size) // _SIZE_STEP) * _SIZE_STEP for side in grown]
    return sizes + [image_size] * (epochs - growing)
