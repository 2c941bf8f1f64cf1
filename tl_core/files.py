"""Files that are there as a whole or not at all, whatever happens to the process or the disk; SQLite's errors."""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
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
    """Say in a sentence that a disk is full, or something is not allowed; every other error passes.

    Args:
        path: what is written; said where the error itself names nothing.
    """
    try:
        yield
    except PermissionError as error:
        place = error.filename or path
        raise InputError(
            f"{place} may not be read or written by this user ({error.strerror}); allow it, or give another place"
        ) from error
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(f"{path} cannot be written ({error.strerror}); make room there and repeat") from error


_SQLITE = {
    sqlite3.SQLITE_BUSY: "is locked by another process; end that, such as a database browser, and repeat the command",
    sqlite3.SQLITE_LOCKED: "is locked by this process; repeat the command",
    sqlite3.SQLITE_FULL: "cannot be written (the disk is full); make room there and repeat the command",
    sqlite3.SQLITE_IOERR: "cannot be read or written (disk error, quota or file-size limit); make room and repeat",
    sqlite3.SQLITE_READONLY: "is read-only; allow writing to the file and its folder, or give another place",
    sqlite3.SQLITE_PERM: "may not be opened; allow it, or give another place",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; expected a file that this user may read and write, in such a folder",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup, or move it away and a new one is made",
    sqlite3.SQLITE_NOTADB: "is no SQLite database; restore it from a backup, or move it away and a new one is made",
}


def line_checksum(text: bytes) -> str:
    """CRC-32 of a line, in eight digits, as it stands before the line."""
    return f"{zlib.crc32(text):08x}"


def say_sqlite_error(error: BaseException | None) -> str:
    """Say what SQLite's error means for a file, and what to do: a sentence without its subject; empty for others.

    Args:
        error: of sqlite3, or of SQLAlchemy about one.
    """
    cause = getattr(error, "orig", error)
    code = getattr(cause, "sqlite_errorcode", 0) if isinstance(cause, sqlite3.Error) else 0
    return _SQLITE.get(code & 0xFF, "")
