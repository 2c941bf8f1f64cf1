"""Sentences on images that were repaired to be read, or that contradict each other, and on names that look wrong."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict

from tl_core.data.cache import CacheIndex
from tl_core.images.decoding import ONE_COLOUR
from tl_core.images.files import name_some

_MOST_PAIRS, _MOST_FILES = 3, 10
_FEW, _RATIO, _NEAR = 2, 5, 0.85  # images of a class, how many times as many the other has, and likeness of the names


def say_notices(index: CacheIndex) -> list[str]:
    """Say which images were repaired to be read, by class; those of one colour are read as they are."""
    classes = dict(zip(index.names, index.class_names, strict=True))
    said = []
    for notice, names in sorted(index.notices.items()):
        if notice != ONE_COLOUR:
            counts = Counter(classes[name] for name in names)
            of_class = name_some([f"{count:,} of {name}" for name, count in sorted(counts.items())])
            said.append(f"{len(names):,} images {notice} ({of_class}): {name_some(names, _MOST_FILES)}")
    return said


def say_contradictions(index: CacheIndex) -> list[str]:
    """Say which files are in two classes although they are the same, byte by byte."""
    first: dict[str, int] = {}
    pairs = defaultdict(list)
    for row, content in enumerate(index.content_hashes):
        earlier = first.setdefault(content, row)
        if index.class_names[earlier] != index.class_names[row]:
            pairs[content].append((earlier, row))
    found = [pair for rows in pairs.values() for pair in rows]
    if not found:
        return []
    some = "; ".join(
        " and ".join(f"{index.names[row]} ({index.class_names[row]})" for row in pair) for pair in found[:_MOST_PAIRS]
    )
    more = f"; and {len(found) - _MOST_PAIRS:,} more" if len(found) > _MOST_PAIRS else ""
    return [f"{len(found):,} images are the same file as one of another class: {some}{more}; remove the wrong ones"]


def say_misspelled(index: CacheIndex) -> list[str]:
    """Say which classes of hardly an image are called nearly as one of many images: `dandelon` beside `dandelion`.

    Names that differ in a number are no misspellings.
    """
    counts = Counter(index.class_names)
    said = []
    for name in sorted(name for name, count in counts.items() if count <= _FEW):
        of_many = [other for other, count in counts.items() if count >= _RATIO * counts[name]]
        fitting = [other for other in of_many if re.findall(r"\d+", other) == re.findall(r"\d+", name)]
        for meant in difflib.get_close_matches(name, fitting, n=1, cutoff=_NEAR):
            files = [file for file, of in zip(index.names, index.class_names, strict=True) if of == name]
            said.append(
                f"the class {name!r} ({', '.join(files)}) is called nearly as {meant!r}, which has {counts[meant]:,} "
                "images; if it is the same, rename it"
            )
    return said
