"""SQLite stores as people leave them: locked by others for a while, cut off, of another release, or something else."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy

from tl_core.errors import InputError
from tl_core.files import say_sqlite_error

_REVISION, _NONE = "alembic_version", ""
_PYTHONS_PATIENCE = 5000  # milliseconds

PATIENCE = 60
"""Seconds that the lock of another process is waited for."""


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def _wait_for_locks(connection: Any, _: object) -> None:
    """Wait longer than Python's sqlite3 does by itself; whoever has said how long, as Optuna's storage, is heard."""
    if not isinstance(connection, sqlite3.Connection):
        return
    if connection.execute("PRAGMA busy_timeout").fetchone() == (_PYTHONS_PATIENCE,):
        connection.execute(f"PRAGMA busy_timeout = {1000 * PATIENCE}")


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "before_cursor_execute", retval=True)
def _wait_no_shorter(_: object, __: object, statement: str, parameters: Any, *___: object) -> tuple[str, Any]:
    """Replace MLflow's own patience, 20 seconds, which every session sets anew."""
    if statement.startswith("PRAGMA busy_timeout"):
        return f"PRAGMA busy_timeout = {1000 * PATIENCE}", parameters
    return statement, parameters


def check_tracking_file(file: Path, address: str) -> bool:
    """Return whether a file holds MLflow's tables; False if it is not there or empty, so that they are to be made.

    Raises:
        InputError: it is locked, damaged, of another release of MLflow, or something else.
    """
    if not file.exists():
        return False
    if file.is_dir():
        raise InputError(f"expected a file as the tracking store, got the folder {file}; move it away")
    try:
        tables, revision = _look_into(file)
    except sqlite3.Error as error:
        reason = say_sqlite_error(error)
        if not reason:
            raise
        raise InputError(f"the tracking store {file} {reason}") from error
    if tables and ("experiments" not in tables or revision == _NONE):
        raise InputError(
            f"expected MLflow's tables in the tracking store {file}, got {', '.join(sorted(tables)[:3])}; give another "
            "store in MLFLOW_TRACKING_URI"
        )
    if tables:
        _check_revision(file, revision, address)
    return bool(tables)


def _look_into(file: Path) -> tuple[set[str], str]:
    """Return the names of a database's tables, and its revision.

    The file is opened to be written, which SQLite does not insist on: what a killed process has left half-written has
    to be rolled back before anybody reads.
    """
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        revisions = (
            database.execute("SELECT version_num FROM alembic_version").fetchall() if _REVISION in tables else []
        )
    return tables - {_REVISION, "sqlite_sequence"}, str(revisions[0][0]) if revisions else _NONE


def _check_revision(file: Path, revision: str, address: str) -> None:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
    from mlflow.version import VERSION

    expected = _get_latest_schema_revision()
    if revision == expected:
        return
    begin = (
        f"expected the tracking store {file} as MLflow {VERSION} has it (revision {expected}), got revision {revision}"
    )
    try:
        ScriptDirectory.from_config(_get_alembic_config("")).get_revision(revision)
    except CommandError as error:
        raise InputError(
            f"{begin} of a newer MLflow; install that one, or give another store in MLFLOW_TRACKING_URI"
        ) from error
    raise InputError(
        f"{begin} of an older MLflow; make a copy of the file, then: mlflow db upgrade {shlex.quote(address)}"
    )
