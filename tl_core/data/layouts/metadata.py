"""A folder with tables metadata.csv or .jsonl in it, which name its files and their labels: the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path

from tl_core.data.classes.levels import PART_NAMES
from tl_core.data.layouts.listing import FoundFiles, ImageListing
from tl_core.data.layouts.tables import LABEL_COLUMNS, RowsOfTables
from tl_core.images.files import name_some
from tl_core.images.tables import open_table

_NAMES = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
_FILE_COLUMN = "file_name"


def list_metadata(spec: str, root: Path, found: FoundFiles) -> ImageListing | None:
    """List the images that a folder's tables of metadata label, or return None if it has none with labels.

    Raises:
        InputError: such a table does not fit.
    """
    named = [name for name in found.others if name.rpartition("/")[2].lower() in _NAMES]
    opened = {name: open_table(root / name) for name in named}
    labelled = [name for name, table in opened.items() if table.find([_FILE_COLUMN]) is not None]
    labelled = [name for name in labelled if opened[name].find(LABEL_COLUMNS) is not None]
    if not labelled:
        return None
    rows = RowsOfTables(root)
    for name in labelled:
        parts = [PART_NAMES[folder.lower()] for folder in name.split("/")[:-1] if folder.lower() in PART_NAMES]
        rows.add(root / name, part=parts[-1] if parts else "")
    listing = rows.listing(spec)
    known = {entry.name for entry in listing.entries} | rows.unlabelled_files
    unnamed = [name for name in found.images if name not in known]
    said = [f"{spec}: {len(unnamed):,} images in no table, left out: {name_some(unnamed)}"] if unnamed else []
    others = tuple(name for name in found.others if name not in labelled)
    return ImageListing(root, listing.entries, listing.signature, (*found.left_out, *listing.notices, *said), others)
