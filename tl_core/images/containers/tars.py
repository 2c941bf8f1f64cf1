"""Images in a tar, compressed or not.

A compressed tar is decompressed into a file without a name, which is gone with the process.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tl_core.errors import InputError
from tl_core.images.containers.members import check_size, inside, with_links
from tl_core.images.files import Reader

MOST_EXPANDED, MOST_EXPANSION = 1 << 30, 100
"""A compressed tar may hold so many bytes, or so many times its own size: images hardly shrink, a bomb does."""

_DECOMPRESSORS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


def tar_files(path: Path, archive: tarfile.TarFile) -> tuple[dict[str, tarfile.TarInfo], list[str]]:
    """Return the files of a tar by their paths, and the links that lead to none of them.

    Raises:
        InputError: a member points outside the archive or is too large.
    """
    files: dict[str, tarfile.TarInfo] = {}
    links: dict[str, str] = {}
    for info in archive:
        if not (info.isfile() or info.issym() or info.islnk()):
            continue
        name = inside(path, info.name, backslashes=False)
        if info.isfile():
            check_size(path, name, info.size)
            files[name] = info
        elif info.issym():
            links[name] = posixpath.join(posixpath.dirname(info.name), info.linkname)
        else:
            links[name] = info.linkname
    return with_links(files, links)


def tar_reader(archive: tarfile.TarFile, files: Mapping[str, tarfile.TarInfo]) -> Reader:
    """Return a function from a member's name to its bytes; it may be called from several threads."""
    lock = threading.Lock()  # one file handle, hence one seek at a time

    def read(name: str) -> bytes:
        with lock:
            stream = archive.extractfile(files[name])
            if stream is None:
                raise OSError(f"{name} is no regular file")
            try:
                return stream.read()
            except tarfile.TarError as error:  # a sparse file's map leads behind the end
                raise OSError(str(error)) from error

    return read


@contextmanager
def open_tar(path: Path, *, stream: bool) -> Iterator[tarfile.TarFile]:
    """Open a tar by its content: plain, or decompressed as a stream for listing and into a file for reading."""
    with path.open("rb") as file:
        start = file.read(8)
    decompress = next((opener for magic, opener in _DECOMPRESSORS if start.startswith(magic)), None)
    if decompress is None:
        with tarfile.open(path, "r:") as archive:
            yield archive
        return
    most = max(MOST_EXPANDED, MOST_EXPANSION * path.stat().st_size)
    with decompress(path) as compressed:
        limited = _Limited(path, compressed, most)
        if stream:
            with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]
                yield archive
            return
        with tempfile.TemporaryFile() as plain:
            try:
                while chunk := limited.read(1 << 20):
                    plain.write(chunk)
            except _DAMAGED as error:
                raise InputError(f"{path} cannot be decompressed ({error}); give it uncompressed, or a zip") from error
            plain.seek(0)
            with tarfile.open(fileobj=plain, mode="r:") as archive:
                yield archive


class _Limited:
    """A stream of a compressed file that refuses to become larger than images would."""

    def __init__(self, path: Path, stream: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile, most: int) -> None:
        self._path, self._stream, self._most, self._left = path, stream, most, most

    def read(self, size: int) -> bytes:
        """Read the next bytes.

        Raises:
            InputError: they were too many.
        """
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise InputError(f"{self._path}: expected at most {self._most:,} bytes after decompression, got more")
        return content
