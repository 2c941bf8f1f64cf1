"""Checkpoints of interrupted work: found again by the same command, gone once its run is FINISHED."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.configs.fields import flat_params


@dataclass(frozen=True)
class HeldCheckpoints:
    """Checkpoints that an open run, and those nested in it, have asked for."""

    until_the_end: ExitStack
    paths: list[Path] = field(default_factory=list)

    def any_left(self) -> bool:
        """Return whether the same command would find something that is done."""
        return any(file for path in self.paths for file in _files(path))


_open: list[HeldCheckpoints] = []


@contextmanager
def checkpoints_of_run() -> Iterator[HeldCheckpoints]:
    """Context of one run: checkpoints that are held in it are deleted at its end, if no error leaves it."""
    with ExitStack() as until_the_end:
        held = HeldCheckpoints(until_the_end)
        _open.append(held)
        try:
            yield held
        finally:
            _open.pop()


def hold_checkpoint(kind: str, config: Any, *fingerprints: str, suffix: str = ".pt") -> Path:
    """Return the checkpoint file of one piece of work, alone in its use until the run ends.

    It is deleted once the store has the run as FINISHED, and so are files beside it whose names start with its stem,
    as those of a training's stages do. Whatever goes wrong before, what was computed is kept.

    Raises:
        InputError: another process is at the same work.
    """
    path = checkpoint_path(kind, config, *fingerprints, suffix=suffix)
    _open[-1].until_the_end.enter_context(_owned(path, kind))
    for held in _open:
        held.paths.append(path)
    return path


def checkpoint_path(kind: str, config: Any, *fingerprints: str, suffix: str = ".pt") -> Path:
    """Return the file in which one piece of work keeps its checkpoint.

    The name depends on the whole config and on the content of the data, so that no other work continues from it.
    """
    from tl_core.data.dataset import default_cache_dir
    from tl_core.files import disk_full_as_input_error

    text = json.dumps([kind, flat_params(config), fingerprints], sort_keys=True, default=str)
    folder = default_cache_dir() / "checkpoints"
    with disk_full_as_input_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{kind}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}{suffix}"


@contextmanager
def _owned(path: Path, kind: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    from tl_core.errors import InputError

    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            yield
            with suppress(OSError):  # the work is done; one that stays gives the same results again
                for file in _files(path):
                    file.unlink()
    except Timeout as error:
        raise InputError(f"another process is at the same {kind}; wait for it, or give another seed") from error


def _files(path: Path) -> list[Path]:
    return [file for file in path.parent.glob(f"{path.stem}*") if file.suffix != ".lock"]
