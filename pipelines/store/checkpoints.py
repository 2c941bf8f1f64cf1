"""Checkpoints of interrupted work: found again by the same command, gone when the work is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.configs.fields import flat_params


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
    return folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"


@contextmanager
def kept_checkpoint(kind: str, config: Any, *fingerprints: str, suffix: str = ".pt") -> Iterator[Path]:
    """The checkpoint file of one piece of work, alone in its use; deleted once the work ends without an error.

    So are files beside it whose names start with its stem, as those of a training's stages do.

    Raises:
        InputError: another process is at the same work.
    """
    from filelock import FileLock, Timeout

    from tl_core.errors import InputError

    path = checkpoint_path(kind, config, *fingerprints, suffix=suffix)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            yield path
            for file in path.parent.glob(f"{path.stem}*"):
                if file.suffix != ".lock":
                    file.unlink()
    except Timeout as error:
        raise InputError(f"another process is at the same {kind}; wait for it, or give another seed") from error
