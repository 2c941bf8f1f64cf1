"""Files that are there as a whole or not at all, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tl_core.errors import InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def complete_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that gets its name once it is complete and on the disk; on an error nothing is left.

    What a killed process leaves has one fixed name beside `path`, and the next call overwrites it. So that no two do
    at once, the caller holds a lock.

    Raises:
        InputError: the disk is full or cannot be written to.
    """
    scratch = path.with_name(path.name + ".part")
    with disk_full_as_input_error(path):
        try:
            with scratch.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


@contextmanager
def disk_full_as_input_error(path: Path | str) -> Iterator[None]:
    """Say in a sentence that a disk is full, `path` being what is written; every other error passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(f"{path} cannot be written ({error.strerror}); make room there and repeat") from error
