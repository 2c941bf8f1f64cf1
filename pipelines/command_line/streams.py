"""Standard output and error that never end a command: what is done is done, whoever listens."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

_written: list[_LossyFile] = []


class _LossyFile(io.FileIO):
    """A file that remembers the first error of writing instead of raising it."""

    failure: OSError | None = None

    def write(self, data: object) -> int:
        """Write bytes, or take them for written."""
        view = memoryview(data)  # type: ignore[arg-type] # whatever has a buffer
        try:
            return super().write(view)
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = self.failure or error
            return view.nbytes


def use_lossy_streams() -> None:
    """Let printing fail silently: on a closed pipe, a full disk, or letters that a console does not have.

    Streams that somebody has replaced, such as a test, are left alone.
    """
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _lossy(sys.stdout)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _lossy(sys.stderr)


def lost_output() -> str:
    """Return the reason why something that was printed is lost; empty if nothing is, or if nobody wants to read on."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # replaced or closed by somebody, or none
            stream.flush()
    failures = [file.failure for file in _written if file.failure is not None]
    return next((str(error.strerror) for error in failures if error.errno != errno.EPIPE), "")


def _lossy(stream: io.TextIOWrapper) -> TextIO:
    stream.flush()
    file = _LossyFile(os.dup(stream.fileno()), "w")
    _written.append(file)
    at_once = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(
        io.BufferedWriter(file), stream.encoding, "backslashreplace", line_buffering=at_once or stream is sys.__stderr__
    )
