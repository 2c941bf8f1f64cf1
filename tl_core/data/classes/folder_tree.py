"""The upper levels of a tree of folders, seen from those that hold images."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class FolderTree:
    """First level of some paths, and what is below each of its folders.

    Attributes:
        first: folders of the first level, sorted.
        below: by such a folder, those right below it that lead to images.
        direct: such folders with images right in them.
    """

    def __init__(self, paths: Iterable[tuple[str, ...]]) -> None:
        self.below: dict[str, set[str]] = {}
        self.direct: set[str] = set()
        for path in paths:
            if path:
                self.below.setdefault(path[0], set()).update(path[1:2])
                if len(path) == 1:
                    self.direct.add(path[0])
        self.first = sorted(self.below)

    def only_below(self, name: str) -> str | None:
        """Return the one folder that a folder of the first level holds, if it holds nothing else."""
        below = self.below[name]
        return next(iter(below)) if len(below) == 1 and name not in self.direct else None


def strip_wrappers(paths: Collection[tuple[str, ...]], kept: Collection[str]) -> int:
    """Count the folders on top that hold nothing but one folder.

    Args:
        kept: lower-case names that mean something even then.
    """
    depth = 0
    while paths and all(len(path) > depth + 1 for path in paths):
        names = {path[depth] for path in paths}
        if len(names) > 1 or next(iter(names)).lower() in kept:
            break
        depth += 1
    return depth
