"""Storages of Optuna's studies: opened with patience, and looked at before anything is written into them."""

from __future__ import annotations

import json
import shlex
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages.journal import JournalFileBackend

from tl_core.errors import InputError
from tl_core.files import say_sqlite_error

HEARTBEAT, GRACE = 10, 40
"""Seconds between signs of life of a trial, and without one until it is given to somebody else."""

PATIENCE = 60
"""Seconds that SQLite waits for the lock of another process."""

_RETRIES = 3
_JOURNAL, _REVISION = "journal:", "alembic_version"


def open_storage(storage: str | None) -> optuna.storages.BaseStorage | None:
    """Open where studies are kept: an SQLAlchemy URL, `journal:` and a path, or None for memory.

    Raises:
        InputError: it cannot be opened, is of another release of Optuna, or another program's.
    """
    if storage is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if storage.startswith(_JOURNAL):
            return _open_journal(storage.removeprefix(_JOURNAL))
        with storage_troubles(storage):
            return _open_database(storage)


@contextmanager
def storage_troubles(storage: str | None) -> Iterator[None]:
    """Say in a sentence what is wrong with a storage; other errors pass."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
        reason = say_sqlite_error(error) or say_sqlite_error(error.__cause__)
        first_line = str(error.__cause__ or error).partition("\n")[0]
        reason = reason or f"does not answer ({first_line}); start it, or give another OPTUNA_STORAGE"
        raise InputError(f"the studies' storage {_shown(storage)} {reason}") from error


def _open_journal(path: str) -> optuna.storages.BaseStorage:
    try:
        opened = optuna.storages.JournalStorage(JournalFileBackend(path))
        opened.get_all_studies()  # reads it, but for a last line that it leaves out now and stumbles over later
        with Path(path).open("rb") as file:
            json.loads(deque(file, maxlen=1).pop() if Path(path).stat().st_size else "{}")
    except OSError as error:
        raise InputError(
            f"the studies' journal {path} cannot be opened ({error.strerror}); expected a file in a folder that exists"
        ) from error
    except (AssertionError, LookupError, TypeError, ValueError) as error:  # whatever a line of something else raises
        raise InputError(
            f"expected a journal of Optuna in {path}, got something else or one whose last line was cut off; "
            "remove that line, or give another OPTUNA_STORAGE"
        ) from error
    return opened


def _open_database(storage: str) -> optuna.storages.BaseStorage:
    try:
        is_sqlite = sqlalchemy.make_url(storage).get_backend_name() == "sqlite"
        connect_args = {"timeout": PATIENCE} if is_sqlite else {}
        opened = optuna.storages.RDBStorage(
            storage,
            engine_kwargs={"connect_args": connect_args},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
            skip_table_creation=_has_tables(storage, connect_args),
        )
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError(
            f"expected OPTUNA_STORAGE as an address such as sqlite:///studies.db or postgresql://host/name, or as "
            f"{_JOURNAL}PATH, got {_shown(storage)!r}"
        ) from error
    except ImportError as error:
        raise InputError(
            f"the driver of {_shown(storage)} is not installed ({error.__cause__ or error}); install it, for "
            "PostgreSQL with 'transfer-lab[postgres]'"
        ) from error
    except RuntimeError as error:
        raise _other_release(storage, error) from error
    if is_sqlite:
        _lock_when_reading(opened.engine)
    return opened


def _has_tables(storage: str, connect_args: dict[str, Any]) -> bool:
    """Return whether a database has Optuna's tables, all of them: that with its revision is made last.

    Raises:
        InputError: it has those of a program that keeps its revision under the same name, as MLflow does.
    """
    engine = sqlalchemy.create_engine(storage, connect_args=connect_args)
    try:
        tables = set(sqlalchemy.inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if _REVISION in tables and "studies" not in tables:
        raise InputError(
            f"expected Optuna's tables in {_shown(storage)}, got those of another program, such as "
            f"{min(tables - {_REVISION}, default='none')}; give another OPTUNA_STORAGE"
        )
    return _REVISION in tables


def _other_release(storage: str, error: RuntimeError) -> Exception:
    """Return an `InputError` for a storage of another release; errors about anything else as they are."""
    if "table schema" not in str(error):
        return error
    if "storage upgrade" in str(error):
        return InputError(
            f"the studies' storage {_shown(storage)} is of an older Optuna than {optuna.__version__}; make a copy of "
            f"it, then: optuna storage upgrade --storage {shlex.quote(_shown(storage))}"
        )
    return InputError(
        f"the studies' storage {_shown(storage)} is of a newer Optuna than {optuna.__version__}; install that one, or "
        "give another OPTUNA_STORAGE"
    )


def _lock_when_reading(engine: sqlalchemy.Engine) -> None:
    """Take SQLite's lock at the start of a transaction, not at its first write.

    SQLite ignores SELECT ... FOR UPDATE, so that two processes could both read that a trial waits and both begin it.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _shown(storage: str | None) -> str:
    try:
        return sqlalchemy.make_url(storage or "memory").render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return str(storage)
