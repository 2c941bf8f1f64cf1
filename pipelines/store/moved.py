"""Stores that were moved with their folder: MLflow writes down where each artifact lies, from the root on."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from mlflow.utils.file_utils import local_file_uri_to_path

from tl_core.errors import InputError
from tl_core.files import say_sqlite_error

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_moved_store(file: Path, artifacts: Path, patience: float) -> None:
    """Have a store's records name the folder of artifacts beside it, where the one that they name is gone.

    Args:
        file: a SQLite store, which nobody else opens meanwhile.
        artifacts: the folder beside it.
        patience: seconds that a lock is waited for.

    Raises:
        InputError: the store cannot be written.
    """
    try:
        with closing(sqlite3.connect(file, timeout=patience)) as database:
            for old in _roots_that_are_gone(database, artifacts):
                new = artifacts.as_uri() if old.startswith("file:") else str(artifacts)
                with database:  # all of them or none
                    for table, column in _PLACES:
                        database.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                            (new, len(old) + 1, len(old) + 1, f"{old}/"),
                        )
                print(f"note: the artifacts that were in {old} are now looked for in {artifacts}", file=sys.stderr)
    except sqlite3.Error as error:
        reason = say_sqlite_error(error)
        if not reason:
            raise
        raise InputError(f"the tracking store {file} {reason}") from error


def _roots_that_are_gone(database: sqlite3.Connection, artifacts: Path) -> list[str]:
    """Folders of artifacts that experiments name, that are no more, and that have come to lie in `artifacts`."""
    found = set[str]()
    for location, number in database.execute("SELECT artifact_location, experiment_id FROM experiments"):
        root, _, name = str(location).rpartition("/")
        if "://" in root and not root.startswith("file:"):
            continue  # on a server
        moved_along = name == str(number) and (artifacts / name).is_dir()
        if root and moved_along and not Path(local_file_uri_to_path(root)).exists():
            found.add(root)
    return sorted(found)
