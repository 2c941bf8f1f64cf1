"""One grammar for `source`, `target` and `data`: a spec names labelled images in one of several layouts."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from tl_core.data.layouts.listing import ImageListing, Layout
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
        spec: a path, or the name of a data set that is built in.
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
            raise InputError(f"no data at {spec!r}; expected {described}")
    for layout in layouts:
        if layout.accepts(spec):
            return layout.list_images(spec, data_dir, class_level)
    raise InputError(f"expected {described}, got {spec}, a file of kind {Path(spec).suffix or 'unknown'!r}")


def _layout(name: str) -> Layout:
    layout: Layout = import_module(f"tl_core.data.layouts.{name}").LAYOUT
    return layout
