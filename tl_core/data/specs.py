"""One grammar for `source`, `target` and `data`: a spec names labelled images in one of several layouts.

Several folders and tables, separated by commas, are one data set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from itertools import chain
from pathlib import Path

from tl_core.data.classes.names import tidy_class_names
from tl_core.data.layouts.listing import ImageEntry, ImageListing, Layout, order, signature
from tl_core.errors import InputError

LAYOUTS = (
    "built_in",
    "folders",
    "archives",
    "tables",
)
"""Files of `tl_core.data.layouts`, the built-in names first; the first that accepts a spec reads it."""


def list_images(spec: str, data_dir: Path, class_level: int = 0) -> ImageListing:
    """List the images that a spec names.

    Args:
        spec: a path, paths of folders and tables separated by commas, or the name of a data set that is built in.
        data_dir: folder of the cached data.
        class_level: level of the class folders, from 1 on; -1 is the folder that holds the image, and 0 finds out.

    Raises:
        InputError: nothing is there, or it is not laid out in a known way.
    """
    by_name, *by_path = layouts = [_layout(name) for name in LAYOUTS]
    described = f"{', '.join(layout.description for layout in by_path)}, or {by_name.description}"
    if not by_name.accepts(spec):
        spec = os.path.expanduser(spec)  # noqa: PTH111 - unlike Path's, this and the next never raise
        if not os.path.exists(spec):  # noqa: PTH110
            if len(parts := [part.strip() for part in spec.split(",")]) > 1:
                return _join(spec, {part: list_images(part, data_dir, class_level) for part in parts})
            raise InputError(f"no data at {spec!r}; expected {described}")
    for layout in layouts:
        if layout.accepts(spec):
            return layout.list_images(spec, data_dir, class_level)
    raise InputError(f"expected {described}, got {spec}, a file of kind {Path(spec).suffix or 'unknown'!r}")


def _join(spec: str, listings: Mapping[str, ImageListing]) -> ImageListing:
    """Return the images of several folders and tables as those of the folder that holds all of them.

    Raises:
        InputError: one of them is an archive, or two give the same image other classes.
    """
    for part, listing in listings.items():
        if not listing.root.is_dir():
            raise InputError(f"expected folders and tables where there are several, got the archive {part}; unpack it")
    root = Path(os.path.commonpath([listing.root.resolve() for listing in listings.values()]))
    found: dict[str, tuple[ImageEntry, str]] = {}
    for part, listing in listings.items():
        above = listing.root.resolve().relative_to(root)
        for entry in (replace(one, name=(above / one.name).as_posix()) for one in listing.entries):
            known, before = found.setdefault(entry.name, (entry, part))
            if known.class_name != entry.class_name:
                raise InputError(
                    f"{part} says that {entry.name} is {entry.class_name!r}, {before} that it is {known.class_name!r}; "
                    "remove one of the two"
                )
    entries = [entry for entry, _ in found.values()]
    names, notices = tidy_class_names(spec, {entry.class_name for entry in entries if not entry.fault})
    named = [replace(one, class_name=names.get(one.class_name, one.class_name)) for one in entries]
    return ImageListing(
        root,
        tuple(sorted(named, key=order)),
        signature(root, [listing.signature for listing in listings.values()]),
        (*chain.from_iterable(listing.notices for listing in listings.values()), *notices),
        tuple(chain.from_iterable(listing.other_files for listing in listings.values())),
    )


def _layout(name: str) -> Layout:
    layout: Layout = import_module(f"tl_core.data.layouts.{name}").LAYOUT
    return layout
