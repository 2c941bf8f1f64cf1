"""Members of an archive: where they may lie, how large they may be, and where links lead."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from tl_core.errors import InputError
from tl_core.images.files import MAX_MEMBER_BYTES, is_left_out_folder

Info = TypeVar("Info")

_MOST_LINKS = 16  # from one link to the next


def left_out_folder(name: str) -> str:
    """Return the hidden or generated folder that a member lies in, or an empty text."""
    parts = name.split("/")
    for depth, part in enumerate(parts[:-1], start=1):
        if is_left_out_folder(part):
            return "/".join(parts[:depth])
    return ""


def with_links(files: dict[str, Info], links: Mapping[str, str]) -> tuple[dict[str, Info], list[str]]:
    """Add the links that lead to a file of the archive; returns the others beside them."""
    broken = []
    found: dict[str, Info] = {}
    for link in links:
        target = link
        for _ in range(_MOST_LINKS):
            if target not in links:
                break
            target = posixpath.normpath(links[target])  # one that leads outside is no name of a file
        if target in files:
            found[link] = files[target]
        elif left_out_folder(link) == "" and not PurePosixPath(link).name.startswith("."):
            broken.append(link)
    return files | found, broken


def inside(path: Path, member: str, *, backslashes: bool) -> str:
    """Return a member's path without `.` and doubled slashes.

    Args:
        backslashes: they separate folders, as some packers for Windows write them.

    Raises:
        InputError: it leaves the archive.
    """
    parts = member.replace("\\", "/").split("/")
    if ".." in parts or member[:1] in ("/", "\\") or member[1:3] in (":/", ":\\"):
        raise InputError(f"{path} has a member named {member!r}, which points outside the archive; refused")
    return "/".join(part for part in (parts if backslashes else member.split("/")) if part not in ("", "."))


def check_size(path: Path, name: str, size: int) -> None:
    """Raise `InputError` if a member is larger than any image is."""
    if size > MAX_MEMBER_BYTES:
        raise InputError(f"{path}: expected at most {MAX_MEMBER_BYTES:,} bytes for one image, got {size:,} of {name}")
