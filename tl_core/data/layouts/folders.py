"""A folder of class folders, with folders train, val and test above them or not."""

from __future__ import annotations

from pathlib import Path

from tl_core.data.layouts.listing import ImageListing, Layout, file_stamp, list_class_folders
from tl_core.errors import InputError
from tl_core.images.files import walk_images


def list_folder(spec: str, root: Path) -> ImageListing:
    """List the images below a folder.

    Raises:
        InputError: a folder cannot be read, or there are no class folders.
    """
    names, stamps = [], []
    for name, error in walk_images(root):
        if error is not None:
            raise InputError(f"folder {error.filename} cannot be read ({error.strerror})") from error
        names.append(name)
        stamps.append(file_stamp(root / name))
    return list_class_folders(spec, root, names, stamps)


LAYOUT = Layout(
    "a folder",
    lambda spec: Path(spec).is_dir(),
    lambda spec, data_dir: list_folder(spec, Path(spec)),  # noqa: ARG005
)
