"""Class and part of an image from the folders that it lies in: one rule for folders and archives.

Folders that hold nothing but one folder are passed through. What comes then are the classes, or train, val and test
with the classes below them; how deep an image lies in its class does not matter. What may be meant in two ways is asked
about, as a wrong class is worse than a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tl_core.data.classes.folder_tree import FolderTree, strip_wrappers
from tl_core.errors import InputError
from tl_core.images.files import name_some

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of a layout's parts, in folders and in a column."""

_PART_WORDS = PART_NAMES | {"trainval": "train", "trainset": "train", "valset": "val", "testset": "test"}
_UNLABELLED_WORDS = frozenset({"pred", "predict", "prediction", "unlabelled", "unlabeled"})
_OPPOSITES = {"valid": "invalid"}

Path = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Class and part of the images in one folder; an empty class is none."""

    class_name: str = ""
    part: str = ""


@dataclass(frozen=True)
class Placement:
    """Places by folder, and sentences on what was left out or not counted."""

    places: Mapping[str, Place]
    notices: tuple[str, ...] = ()


def place_folders(spec: str, counts: Mapping[str, int], level: int) -> Placement:
    """Find the class and the part of every folder.

    Args:
        counts: images right in each folder, by its path from the root with forward slashes.
        level: that of the class folders: 1 is the first below the data or below train, val and test, -1 the folder
            that holds the image, 0 the first unless something else may be meant.

    Raises:
        InputError: there are no class folders, or they are unclear.
    """
    paths = {folder: tuple(folder.split("/")) if folder else () for folder in counts}
    if level < 0:
        places = {folder: _place(path, len(path) + level) for folder, path in paths.items()}
    else:
        n_wrappers = strip_wrappers(list(paths.values()), PART_NAMES)
        inner = {folder: path[n_wrappers:] for folder, path in paths.items()}
        places = _place_by_level(spec, inner, level)
    outside = sorted(folder for folder, place in places.items() if counts[folder] and not place.class_name)
    if not any(place.class_name for place in places.values()) or (level == 0 and "" in outside):
        raise InputError(f"{spec} holds images outside of class folders; expected {spec}/<class>/<image>")
    notices = []
    if outside:
        n_images = sum(counts[folder] for folder in outside)
        notices.append(
            f"{spec}: {n_images:,} images in no class folder, left out: "
            f"{name_some([folder or '.' for folder in outside])}"
        )
    if level == 0:
        notices += _deeper_folders(spec, places)
    return Placement(places, tuple(notices))


def part_of(name: str) -> str | None:
    """Return the part that a folder's name speaks of, empty for unlabelled images, None for none or several."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    parts = {_PART_WORDS[word] for word in words if word in _PART_WORDS}
    if words & _UNLABELLED_WORDS and not parts:
        return ""
    return parts.pop() if len(parts) == 1 else None


def _place(path: Path, index: int, part: str = "") -> Place:
    """Take the folder at an index for the class; without a part, one of those above it may name it."""
    if not 0 <= index < len(path):
        return Place()
    above = [PART_NAMES[name.lower()] for name in path[:index] if name.lower() in PART_NAMES]
    return Place(path[index], part or (above[-1] if above else ""))


def _place_by_level(spec: str, paths: Mapping[str, Path], level: int) -> dict[str, Place]:
    tree = FolderTree(paths.values())
    parts = _parts(tree)
    if parts and (level == 0 or len(parts) == len(tree.first)):
        return _place_in_parts(spec, paths, tree, parts, level)
    if level == 0:
        return _place_classes(spec, paths, tree)
    return {folder: _place(path, level - 1) for folder, path in paths.items()}


def _parts(tree: FolderTree) -> dict[str, str]:
    """Return the part of each folder of the first level, if these are parts with classes in them."""
    named = {name: PART_NAMES[name.lower()] for name in tree.first if name.lower() in PART_NAMES}
    spoken = {name: part for name in tree.first if (part := part_of(name)) is not None}
    labelled = [name for name, part in spoken.items() if part]
    distinct = len({spoken[name] for name in labelled}) == len(labelled) or len(named) == len(labelled)
    if len(spoken) == len(tree.first) and distinct and any(tree.below[name] for name in labelled):
        return spoken
    return named if any(tree.below[name] for name in named) else {}


def _place_in_parts(
    spec: str, paths: Mapping[str, Path], tree: FolderTree, parts: Mapping[str, str], level: int
) -> dict[str, Place]:
    index = max(level, 1)
    places = {}
    for folder, path in paths.items():
        if path and path[0] in parts:
            repeated = tree.only_below(path[0])  # seg_train/seg_train, as some archives have it
            skipped = int(repeated is not None and part_of(repeated) == part_of(path[0]))
            places[folder] = _place(path, index + skipped, parts[path[0]])
    classes = {place.class_name for place in places.values() if place.class_name}
    if not classes:
        raise InputError(f"{spec} has its images right below {', '.join(sorted(parts))}; expected {_expected(spec)}")
    for name in tree.first:
        if name not in parts and tree.below[name]:
            _ask(spec, tree.first, 1, classes | tree.below[name], 2)
    return {folder: places.get(folder) or _place(path, index) for folder, path in paths.items()}


def _place_classes(spec: str, paths: Mapping[str, Path], tree: FolderTree) -> dict[str, Place]:
    if len(tree.first) > 1 and not tree.direct and all(_are_parts(tree.below[name]) for name in tree.first):
        third = {path[2] for path in paths.values() if len(path) > 2}
        if len(third) > 1:
            _ask(spec, tree.first, 1, third, 3)
        return {folder: _place(path, 0, PART_NAMES[path[1].lower()]) for folder, path in paths.items()}
    flat = [name for name in tree.first if not tree.below[name]]
    if all(name.lower() in PART_NAMES for name in flat) and len(flat) == len(tree.first) > 0:
        raise InputError(f"{spec} has its images right below {', '.join(sorted(flat))}; expected {_expected(spec)}")
    holders = [name for name in tree.first if len(tree.below[name]) > 1 and name not in tree.direct]
    if len(holders) == 1 and flat and len(holders) + len(flat) == len(tree.first):
        if all(part_of(name) is not None for name in flat):
            return {folder: _place(path, 1) for folder, path in paths.items()}
        if len(flat) < len(tree.below[holders[0]]):
            _ask(spec, tree.first, 1, tree.below[holders[0]], 2)
    _refuse_part_beside_classes(spec, tree)
    return {folder: _place(path, 0) for folder, path in paths.items()}


def _refuse_part_beside_classes(spec: str, tree: FolderTree) -> None:
    lower = {name.lower() for name in tree.first}
    beside = [name for name in tree.first if name.lower() in PART_NAMES or name.lower() in _UNLABELLED_WORDS]
    beside = [name for name in beside if _OPPOSITES.get(name.lower()) not in lower]
    if beside and len(beside) < len(tree.first):
        others = name_some(sorted(set(tree.first) - set(beside)))
        raise InputError(
            f"{spec} has {' and '.join(sorted(beside))} beside {others}: expected class folders, or train, val and "
            f"test; give class_level=1 if {beside[0]} is a class, else move it elsewhere"
        )


def _deeper_folders(spec: str, places: Mapping[str, Place]) -> list[str]:
    deeper = set()
    for folder, place in places.items():
        _, found, rest = f"/{folder}/".partition(f"/{place.class_name}/")
        if place.class_name and found and (name := rest.split("/")[0]) and name.lower() not in PART_NAMES:
            deeper.add(name)
    if not deeper:
        return []
    some = name_some(sorted(deeper))
    return [f"{spec}: folders inside the class folders are no classes: {some}; class_level=2 would make them so"]


def _ask(spec: str, first: Iterable[str], first_level: int, second: Iterable[str], second_level: int) -> None:
    one, other = name_some(sorted(first)), name_some(sorted(second))
    raise InputError(
        f"{spec} may be read in two ways: give class_level={first_level} for the classes {one}, or "
        f"class_level={second_level} for the classes {other}"
    )


def _are_parts(names: Iterable[str]) -> bool:
    found = list(names)
    return bool(found) and all(name.lower() in PART_NAMES for name in found)


def _expected(spec: str) -> str:
    return f"{spec}/train/<class>/<image>"
