"""The side of the training views in each epoch."""

from __future__ import annotations

import numpy as np

from tl_core.errors import InputError

_GROWTH_SHARE = 2 / 3
_SIZE_STEP = 16


def view_sizes(start_size: int, view_size: int, image_size: int, epochs: int) -> list[int]:
    """The side of the training views in each epoch: growing first, then full.

    Growing is progressive resizing (Tan and Le, 2021). Views that end smaller than the images show what is in them as
    large as the whole images do later, since a view is a crop that is scaled up (Touvron et al., 2019).

    Args:
        start_size: the first epoch's side; 0 is the full one throughout.
        view_size: the full side; 0 is that of the images, `image_size`.

    Raises:
        InputError: the views are larger than the images, or the start is larger than the end.
    """
    if view_size > image_size:
        raise InputError(f"view_size is {view_size}; allowed is at most image_size, {image_size}")
    end, name = (view_size, "view_size") if view_size else (image_size, "image_size")
    if start_size > end:
        raise InputError(f"start_size is {start_size}; allowed is at most {name}, {end}")
    if start_size == 0:
        return [end] * epochs
    growing = min(epochs, max(1, round(_GROWTH_SHARE * epochs)))
    grown = np.linspace(start_size, end, growing + 1)[:-1]
    # In steps, because each new shape costs the first step a while.
    sizes = [start_size + int((side - start_size) // _SIZE_STEP) * _SIZE_STEP for side in grown]
    return sizes + [end] * (epochs - growing)
