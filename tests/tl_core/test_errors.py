"""What is the user's to mend, and what is a bug."""

from __future__ import annotations

import pytest
import torch

from tl_core.errors import InputError, enough_memory


def test_a_device_without_enough_memory_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"too little memory .* give a smaller batch_size"), enough_memory():
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(InputError, match="too little memory"), enough_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), enough_memory():
        torch.ones(2, 3) @ torch.ones(2, 3)
