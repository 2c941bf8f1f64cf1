"""The one exception, and the one warning, that a user is meant to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """The input is at fault, not the code.

    The message is one sentence for the user: what was wrong, what was given, what is allowed. The command
    line prints it and exits with code 2; every other exception is a bug and keeps its traceback. It is no
    ValueError, so that nothing between the check and the user takes it for its own.
    """


class DataWarning(UserWarning):
    """The data allow less than they seem to.

    The message is one sentence for the user; the command line prints it once.
    """


@contextmanager
def enough_memory() -> Iterator[None]:
    """Context in which a device that runs out of memory is no bug: torch's error becomes an `InputError`."""
    try:
        yield
    except RuntimeError as error:
        # Torch has a class of its own for CUDA alone; MPS and the CPU only say it.
        if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise
        raise InputError(
            "the device has too little memory for this; give a smaller batch_size or image_size, or a smaller network"
        ) from error
