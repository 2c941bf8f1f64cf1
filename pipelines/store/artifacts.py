"""Artifacts of runs, as local files."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from pipelines.store.connection import is_unreachable
from tl_core.data.dataset import default_cache_dir
from tl_core.errors import InputError


def fetch_artifact(run_id: str, name: str) -> Path:
    """Local path of an artifact of a run; one that lies on another machine is downloaded into the cache.

    Raises:
        InputError: the run has no such artifact.
    """
    uri = mlflow.MlflowClient().get_run(run_id).info.artifact_uri
    assert uri is not None
    try:
        if urlparse(uri).scheme in ("", "file"):
            path = Path(local_file_uri_to_path(uri), name)
        else:
            folder = default_cache_dir() / "artifacts" / run_id
            path = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and is_unreachable(error):
            raise
        raise InputError(f"artifact {name!r} of run {run_id} cannot be fetched ({error})") from error
    if not path.exists():
        raise InputError(f"run {run_id} has no artifact {name!r}")
    return path


def plain_place(place: str) -> str:
    """Return where something lies: of this machine the path, any other address as it is."""
    return place if urlparse(place).scheme not in ("", "file") else str(local_file_uri_to_path(place))


def short_place(place: str) -> str:
    """Return where something lies, as short as it can be copied from a terminal.

    Of this machine the path, from the working directory on where it lies below it; any other address as it is.
    """
    found = plain_place(place)
    path = Path(found)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else found
