"""A folder of class folders, with folders train, val and test above them or not, or with tables of metadata in it."""

from __future__ import annotations

import os
from pathlib import Path

from tl_core.data.layouts.listing import FoundFiles, ImageListing, Layout, list_class_folders
from tl_core.data.layouts.metadata import list_metadata
from tl_core.errors import InputError
from tl_core.images.files import LeftOut, file_stamp, say_left_out, walk_images


def list_folder(spec: str, root: Path, level: int = 0) -> ImageListing:
    """List the images below a folder.

    Raises:
        InputError: a folder cannot be read, or there are no class folders.
    """
    names, stamps = [], []
    left_out = LeftOut()
    base = f"{root}{os.sep}"
    for name, error in walk_images(root, left_out):
        if error is not None:
            raise InputError(f"folder {error.filename} cannot be read ({error.strerror})") from error
        names.append(name)
        stamps.append(file_stamp(base + name))
    found = FoundFiles(names, stamps, left_out.files, say_left_out(spec, left_out.folders))
    return list_metadata(spec, root, found) or list_class_folders(spec, root, found, level)


LAYOUT = Layout(
    "a folder",
    lambda spec: Path(spec).is_dir(),
    lambda spec, data_dir, level: list_folder(spec, Path(spec), level),  # noqa: ARG005
)
