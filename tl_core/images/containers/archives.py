"""Images in a zip or tar that is read in place.

Archives are never unpacked, so that no member can be written anywhere; members that point outside the archive are
refused all the same, and links are followed inside the archive only.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tl_core.errors import InputError
from tl_core.images.containers.members import left_out_folder
from tl_core.images.containers.tars import open_tar, tar_files, tar_reader
from tl_core.images.containers.zips import zip_files, zip_reader
from tl_core.images.decoding import is_image_name
from tl_core.images.files import Reader, name_some, say_left_out

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_KINDS = ".zip, .tar, .tar.gz, .tar.bz2 or .tar.xz"

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Members:
    """Members of an archive, each by its path with forward slashes.

    Attributes:
        names: images, in the order of the archive.
        hidden: hidden and generated folders that hold images.
        others: files that are not named like images.
        broken_links: links that lead to no file of the archive.
    """

    names: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    broken_links: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, list[str]]:
        """Return what `Members(**fields)` is made from."""
        return asdict(self)


def is_archive(path: Path) -> bool:
    """Return whether a path ends like an archive that can be read in place."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def list_members(path: Path) -> Members:
    """List the members of an archive.

    Raises:
        InputError: not such an archive, or a member points outside it or is larger than `MAX_MEMBER_BYTES`.
    """
    kind = "zip" if _is_zip(path) else "tar"
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive:
                in_zip, broken = zip_files(path, archive)
                names = list(in_zip)
        else:
            with open_tar(path, stream=True) as tar:
                in_tar, broken = tar_files(path, tar)
                names = list(in_tar)
    except (*_DAMAGED, NotImplementedError, ValueError) as error:  # ValueError: a sparse tar's map of words
        raise InputError(f"{path} is not a readable {kind} archive ({error})") from error
    return _sorted_out(names, broken)


def say_left_out_members(spec: str, members: Members) -> list[str]:
    """Say which members of an archive were left out although they may be images, if any."""
    said = say_left_out(spec, members.hidden)
    if members.broken_links:
        said.append(f"{spec}: links to no file of the archive, left out: {name_some(members.broken_links)}")
    return said


def _sorted_out(files: Sequence[str], broken: list[str]) -> Members:
    members = Members(broken_links=broken)
    hidden: dict[str, None] = {}
    for name in files:
        folder = left_out_folder(name)
        if folder and is_image_name(name):
            hidden[folder] = None
        elif not folder:
            (members.names if is_image_name(name) else members.others).append(name)
    members.hidden.extend(hidden)
    return members


@contextmanager
def open_archive(path: Path) -> Iterator[Reader]:
    """Yield a function from a member's name to its bytes; it may be called from several threads.

    It raises OSError where the member is damaged.

    Raises:
        InputError: a compressed tar cannot be decompressed.
    """
    if _is_zip(path):
        with zipfile.ZipFile(path) as archive:
            yield zip_reader(archive, zip_files(path, archive)[0])
    else:
        with open_tar(path, stream=False) as tar:
            yield tar_reader(tar, tar_files(path, tar)[0])


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"
