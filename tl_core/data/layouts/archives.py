"""A .zip or .tar of class folders, read in place."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from tl_core.data.layouts.listing import ImageListing, Layout, file_stamp, list_class_folders, signature
from tl_core.files import complete_file, disk_full_as_input_error
from tl_core.images.files import archive_names, is_archive


def _list_archive(spec: str, data_dir: Path) -> ImageListing:
    root = Path(spec)
    stamps = [file_stamp(root)]
    return list_class_folders(spec, root, _cached_names(root, signature(root, stamps), data_dir), stamps)


def _cached_names(archive: Path, version: str, data_dir: Path) -> list[str]:
    """Return the image members of an archive; a large tar takes seconds to walk, so they are kept."""
    known = data_dir / f"names-{version[:32]}.json"
    with suppress(OSError, ValueError):
        names: list[str] = json.loads(known.read_text())
        return names
    names = archive_names(archive)
    with disk_full_as_input_error(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(known.with_suffix(".lock")), complete_file(known) as file:
        file.write(json.dumps(names).encode())
    return names


LAYOUT = Layout("a .zip or .tar", lambda spec: is_archive(Path(spec)), _list_archive)
