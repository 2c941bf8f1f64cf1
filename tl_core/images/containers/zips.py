"""Images in a zip, whichever packer wrote it."""

from __future__ import annotations

import bz2
import copy
import lzma
import posixpath
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from tl_core.images.containers.members import check_size, inside, with_links
from tl_core.images.files import MAX_MEMBER_BYTES, Reader

_LINK_BYTES = 4096
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError, ValueError)
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
            check_size(path, name, max(info.file_size, info.compress_size))
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
        target = _read_member(archive, info).decode()
    except (*_DAMAGED, OSError):
        return "/"
    return posixpath.join(posixpath.dirname(_zip_name(info).replace("\\", "/")), target)


def zip_reader(archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo]) -> Reader:
    """Return a function from a member's name to its bytes; it raises OSError where the member is damaged."""

    def read(name: str) -> bytes:
        try:
            return _read_member(archive, files[name])
        # A damaged, encrypted or unknown member is one unreadable image, not the end of the archive.
        except _DAMAGED as error:
            raise OSError(str(error)) from error

    return read


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a member's bytes, no more than it says it has: `ZipFile.read` decompresses first and counts then."""
    if info.compress_type == zipfile.ZIP_STORED:
        return archive.read(info)
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # that of the content
    content = _decompress(info.compress_type, archive.read(packed), info.file_size + 1)
    if len(content) != info.file_size:
        more = "more" if len(content) > info.file_size else f"{len(content):,}"
        raise zipfile.BadZipFile(f"expected {info.file_size:,} bytes, as the archive says, got {more}")
    if zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile("its checksum is not that of the archive")
    return content


def _decompress(method: int, packed: bytes, most: int) -> bytes:
    """Return at most so many bytes."""
    if method == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
    if method == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(packed, most)
    if method != zipfile.ZIP_LZMA:
        raise NotImplementedError(f"compression method {method} is not supported")
    # A version and the length of the properties, which .lzma files begin with, followed there by a size.
    end = 4 + int.from_bytes(packed[2:4], "little")
    alone = packed[4:end] + b"\xff" * 8 + packed[end:]
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_MEMBER_BYTES).decompress(alone, most)
