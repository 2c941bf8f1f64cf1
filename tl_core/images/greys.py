"""Greys of more than eight bits to bytes: by the range that an image's own values have.

X-ray detectors and microscopes write 12 bits into a file of 16; divided by the range of the file they would be black.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FULL_RANGES = (1.0, 255.0, 4095.0, 65535.0)
"""Largest values of a share, a byte, 12 bits and 16 bits."""


def to_bytes(grey: NDArray[np.float32], *, are_shares: bool) -> tuple[NDArray[np.uint8], str]:
    """Scale greys to 0..255.

    The range is the smallest of 8, 12 and 16 bits that holds the largest value; shares, which a file of decimal numbers
    may hold, range to 1, and values above 16 bits to the largest. Negative values and those that are no numbers are
    black.

    Args:
        are_shares: a largest value of at most 1 is the whole range.

    Returns:
        The bytes, and a notice where the range is not that of the file.
    """
    known = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(known.max())
    full = next((top for top in _FULL_RANGES[0 if are_shares else 1 :] if largest <= top), largest)
    notice = (
        "" if full == _FULL_RANGES[-1] or largest <= 0 else f"hold greys to {full:.0f} and are scaled by that range"
    )
    return np.clip(known / (full / 255.0), 0, 255).astype(np.uint8), notice
