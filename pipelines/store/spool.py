"""Commands whose results could not be uploaded, because the tracking server stayed away.

What they have computed lies in journals and checkpoints, so that repeating a command uploads it without computing it
again. A record of this spool says which command: `python -m pipelines.sync` repeats them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.configs.fields import flat_params
from tl_core.data.dataset import default_cache_dir
from tl_core.errors import InputError
from tl_core.files import complete_file


@dataclass(frozen=True)
class Waiting:
    """A command that waits for the server.

    Attributes:
        arguments: its command line.
        since: when the server was given up, seconds since the epoch.
    """

    path: Path
    entry_point: str
    arguments: list[str]
    since: float


def keep_for_sync(entry_point: str, config: Any) -> None:
    """Add a command to the spool."""
    path = _record(entry_point, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"entry_point": entry_point, "arguments": _arguments(config), "since": time.time()}
    with complete_file(path) as file:
        file.write(json.dumps(record, indent=1).encode())


def forget(entry_point: str, config: Any) -> None:
    """Take a command out of the spool: its results are where they belong."""
    _record(entry_point, config).unlink(missing_ok=True)


@contextmanager
def open_spool() -> Iterator[list[Waiting]]:
    """The commands that wait, the oldest first; one process at a time works them off.

    Raises:
        InputError: another process does.
    """
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            found = [Waiting(path, **json.loads(path.read_text())) for path in folder.glob("*.json")]
            yield sorted(found, key=lambda waiting: waiting.since)
    except Timeout as error:
        raise InputError("another process is uploading; wait for it") from error


def _folder() -> Path:
    return default_cache_dir() / "spool"


def _record(entry_point: str, config: Any) -> Path:
    name = hashlib.sha256("\n".join(_arguments(config)).encode()).hexdigest()[:16]
    return _folder() / f"{entry_point}-{name}.json"


def _arguments(config: Any) -> list[str]:
    return [part for name, value in flat_params(config).items() for part in (f"--{name}", str(value))]
