"""Made data that knows its answer, and a store of its own for every test."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # the test processes share the cores

ROOT = Path(__file__).resolve().parents[1]
MLRUNS = ROOT / "mlruns"
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}

MakeColours = Callable[..., Path]


@contextmanager
def locked(file: Path, seconds: float = 60) -> Iterator[None]:
    """Hold the file's lock, as a database browser does, for some seconds or until the context is left."""
    taken, left = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            taken.set()
            left.wait(seconds)

    browser = threading.Thread(target=hold)
    browser.start()
    taken.wait()
    try:
        yield
    finally:
        left.set()
        browser.join()


def write_colour_images(folder: Path, n_per_class: int = 20, size: int = 24, seed: int = 0) -> Path:
    """Class folders of noisy single-colour pictures: the mean colour is the label."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(n_per_class):
            noise = rng.normal(0, 25, (size, size, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03d}.png")
    return folder


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """20 pictures of each of three colours, 24 x 24 PNG."""
    return write_colour_images(tmp_path / "colours")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_in_the_checkout() -> Iterator[None]:
    """The user's own records lie where the tests are started: not one may be added."""
    before = {*MLRUNS.iterdir(), *ROOT.glob("*.db")}
    yield
    left = {*MLRUNS.iterdir(), *ROOT.glob("*.db")} - before
    assert not left, f"the tests left {left}"


@cache
def _new_store() -> Path:
    """The SQLite file of a new MLflow store: its tables take seconds to make, a copy takes none."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path = Path(tempfile.mkdtemp()) / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SqlAlchemyStore(f"sqlite:///{path}", str(path.parent / "mlruns"))
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return path


def make_store(folder: Path) -> str:
    """Make a new MLflow store whose artifacts lie beside it; returns its address."""
    path = folder / "mlflow.db"
    shutil.copy(_new_store(), path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ?", ((folder / "mlruns" / "0").as_uri(),))
    return f"sqlite:///{path}"


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded pyfunc model puts copies of some modules first on the path, where later processes would find them."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@contextmanager
def own_store(folder: Path) -> Iterator[Path]:
    """Tracking store, studies and cache in a folder, for fixtures that several tests share."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        uri = make_store(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("OPTUNA_STORAGE", f"sqlite:///{folder / 'studies.db'}")
        patch.setenv("TRANSFER_LAB_CACHE", str(folder / "cache"))
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real MLflow store on a temporary SQLite file; yields its URI."""
    import mlflow

    uri = make_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path / 'studies.db'}")
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment(experiment_id="0")  # MLflow remembers the one that an earlier test was in
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
