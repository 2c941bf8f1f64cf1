"""Images in a zip, whichever packer wrote it."""

from __future__ import annotations

import lzma
import posixpath
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from tl_core.images.containers.members import check_size, inside, with_links
from tl_core.images.files import Reader

_LINK_BYTES = 4096
_UTF8_FLAG, _UNIX = 0x800, 3


def zip_files(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Return the files of a zip by their paths, and the links that lead to none of them.

    Raises:
        InputError: a member points outside the archive or is too large.
    """
    files: dict[str, zipfile.ZipInfo] = {}
    links: dict[str, str] = {}
    for info in archive.infolist():
        name = inside(path, _zip_name(info), backslashes=True)
        if name and not info.is_dir() and not info.filename.endswith("\\"):
            check_size(path, name, info.file_size)
            files[name] = info  # of a member that was added twice the last one counts
            if stat.S_ISLNK(info.external_attr >> 16) and info.create_system == _UNIX:
                links[name] = _zip_link(archive, info)
    return with_links({name: info for name, info in files.items() if name not in links}, links)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name as it was meant: some packers write backslashes, some UTF-8 without saying so."""
    name = info.filename
    if not info.flag_bits & _UTF8_FLAG and not name.isascii():
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = info.filename
    return name


def _zip_link(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    if info.file_size > _LINK_BYTES:
        return "/"
    try:
        target = archive.read(info).decode()
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, UnicodeDecodeError):
        return "/"
    return posixpath.join(posixpath.dirname(_zip_name(info).replace("\\", "/")), target)


def zip_reader(archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo]) -> Reader:
    """Return a function from a member's name to its bytes; it raises OSError where the member is damaged."""

    def read(name: str) -> bytes:
        try:
            return archive.read(files[name])
        # A damaged, encrypted or unknown member is one unreadable image, not the end of the archive.
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            RuntimeError,
            NotImplementedError,
            EOFError,
            UnicodeDecodeError,
        ) as error:
            raise OSError(str(error)) from error

    return read
