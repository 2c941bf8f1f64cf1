"""A .zip or .tar of class folders, compressed or not, read in place."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from tl_core.data.layouts.listing import FoundFiles, ImageListing, Layout, list_class_folders, signature
from tl_core.files import complete_file, disk_full_as_input_error
from tl_core.images.containers.archives import ARCHIVE_KINDS, Members, is_archive, list_members, say_left_out_members
from tl_core.images.files import file_stamp


def _list_archive(spec: str, data_dir: Path, level: int) -> ImageListing:
    root = Path(spec)
    stamps = [file_stamp(root)]
    members = _cached_members(root, signature(root, stamps), data_dir)
    said = say_left_out_members(spec, members)
    return list_class_folders(spec, root, FoundFiles(members.names, stamps, members.others, said), level)


def _cached_members(archive: Path, version: str, data_dir: Path) -> Members:
    """Return the members of an archive; a large tar takes seconds to walk, so they are kept."""
    known = data_dir / f"members-{version[:32]}.json"
    with suppress(OSError, ValueError, TypeError):
        return Members(**json.loads(known.read_text()))
    members = list_members(archive)
    with disk_full_as_input_error(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(known.with_suffix(".lock")), complete_file(known) as file:
        file.write(json.dumps(members.as_json()).encode())
    return members


LAYOUT = Layout(f"an archive ({ARCHIVE_KINDS})", lambda spec: is_archive(Path(spec)), _list_archive)
