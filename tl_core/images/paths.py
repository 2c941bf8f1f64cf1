"""Image files that a table means, found below a folder: tables are made on other machines, by other systems."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote

from tl_core.images.files import walk_images

_PLACE = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]+:/+|[A-Za-z]:/+|/+)")
"""What stands before a path that counts from elsewhere: a scheme, a drive, or a root."""
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the names of uploaded files."""


class ImagePaths:
    """The image files below a folder, found by path, by the end of a path, by name, or by name without its suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[str, list[str]] | None = None

    def find(self, text: str, encoding: str = "utf-8") -> list[str]:
        r"""Return the files that a cell may mean, by their paths from the folder: one, unless it is missing or unclear.

        Folders before those of this folder are ignored: `C:\data\cat\1.png` is `cat/1.png`. Of a path from here, at
        least one folder has to fit.

        Args:
            encoding: that of the table, in case the system's names are the same bytes and not the same text.
        """
        # A name may have a backslash, or spaces at its ends, even if few do.
        if ("\\" in text or text != text.strip()) and _is_from_here(text) and self._is_file(text):
            return [text]
        parts, is_foreign = split_path(text)
        least = 1 if is_foreign or len(parts) == 1 else 2
        for start in range(len(parts) - least + 1):
            path = "/".join(parts[start:])
            for candidate in (path, _same_bytes(path, encoding)):
                if self._is_file(candidate):
                    return [candidate]
        return self._search(parts, least) if parts else []

    def _is_file(self, path: str) -> bool:
        # Unlike Path.is_file, false for a name that is too long.
        return bool(path) and os.path.isfile(os.path.join(self._folder, path))  # noqa: PTH113, PTH118

    def _search(self, parts: list[str], least: int) -> list[str]:
        if self._by_name is None:
            self._by_name = self._index()
        found = self._by_name.get(parts[-1]) or self._by_name.get(_UPLOADED.sub("", parts[-1])) or []
        fitting = {name: _n_fitting(name, parts) for name in found}
        most = max(fitting.values(), default=0)
        if most < least:
            return []
        return sorted(name for name, n_fitting in fitting.items() if n_fitting == most)

    def _index(self) -> dict[str, list[str]]:
        by_name = defaultdict(list)
        for path, error in walk_images(self._folder):
            if error is None:
                name = path.rpartition("/")[2]
                for key in {name, name.rpartition(".")[0]}:
                    by_name[key].append(path)
        return by_name


def split_path(text: str) -> tuple[list[str], bool]:
    """Return the folders and the name of a path as any system writes it, and whether it counts from elsewhere."""
    path = text.strip().replace("\\", "/")
    _, served, local = path.partition("?d=")  # Label Studio's files of its own machine
    if served:
        path = f"/{unquote(local)}"
    place = _PLACE.match(path)
    parts = [part for part in path[place.end() if place else 0 :].split("/") if part not in ("", ".")]
    is_foreign = place is not None or ".." in parts
    if ".." in parts:
        last = len(parts) - 1 - parts[::-1].index("..")
        parts = parts[last + 1 :]
    return parts, is_foreign


def _is_from_here(path: str) -> bool:
    return _PLACE.match(path) is None and ".." not in path.split("/")


def _same_bytes(path: str, encoding: str) -> str:
    try:
        return os.fsdecode(path.encode(encoding))
    except UnicodeError:
        return ""


def _n_fitting(name: str, parts: list[str]) -> int:
    """Count the folders at the end of two paths that are the same, and one for the name."""
    count = 1
    for mine, wanted in zip(name.split("/")[-2::-1], parts[-2::-1], strict=False):
        if mine != wanted:
            break
        count += 1
    return count
