"""A SQLite store that people touch: what is waited for, and what is said of the rest."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest

from pipelines.store import sqlite
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.checkpoints import hold_checkpoint
from pipelines.store.connection import prepare_store, study_storage
from pipelines.store.find import find_run
from pipelines.store.runs import tracked_run
from tests.conftest import free_port, locked, make_store
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@dataclass(frozen=True)
class Knobs:
    rate: float = 1e-3


def change(*statements: str) -> Callable[[Path], object]:
    def apply(file: Path) -> None:
        with closing(sqlite3.connect(file)) as database, database:
            for statement in statements:
                database.execute(statement)

    return apply


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def scribble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for start in range(5000, len(content), 4096):
        content[start : start + 200] = b"\xff" * 200
    file.write_bytes(content)


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_other_tables(file: Path) -> None:
    file.unlink()
    change("CREATE TABLE songs (name TEXT)")(file)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "older": (change("UPDATE alembic_version SET version_num = 'bf29a5ff90ea'"), r"older MLflow; .* mlflow db upgrade"),
    "newer": (change("UPDATE alembic_version SET version_num = 'ffffffffffff'"), "newer MLflow; install that one"),
    "newer, without a table that we have": (
        change("UPDATE alembic_version SET version_num = 'ffffffffffff'", "DROP TABLE webhooks"),
        "newer MLflow; install that one",
    ),
    "no revision": (change("DROP TABLE alembic_version"), "expected MLflow's tables"),
    "another program's": (replace_by_other_tables, "expected MLflow's tables .*, got songs"),
    "cut off": (cut, "is damaged; restore it from a backup"),
    "overwritten": (scribble, "is damaged; restore it from a backup"),
    "a text": (lambda file: file.write_text("no database\n" * 1000), "is no SQLite database; restore it"),
    "a folder": (replace_by_folder, "expected a file as the tracking store, got the folder"),
    "deleted experiment": (
        change("UPDATE experiments SET lifecycle_stage = 'deleted'"),
        "experiment 'Default' is deleted; restore it with mlflow experiments restore --experiment-id 0",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_store_that_cannot_be_used_is_one_sentence_with_the_way_out(kind: str, store: str, tmp_path: Path) -> None:
    damage, sentence = UNFIT[kind]
    damage(tmp_path / "mlflow.db")
    with pytest.raises(InputError, match=sentence) as failure, tracked_run("prepare", Knobs()):
        pass
    assert "\n" not in str(failure.value)


def test_an_experiment_of_an_unknown_id_is_named(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    with pytest.raises(InputError, match="expected the id of an experiment in MLFLOW_EXPERIMENT_ID, got '77'"):
        prepare_store()


def test_an_empty_file_becomes_a_store(store: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    with tracked_run("prepare", Knobs()) as run_id:
        pass
    assert find_run(run_id, "prepare").info.status == "FINISHED"


def test_what_a_killed_process_left_half_written_is_rolled_back(store: str, tmp_path: Path) -> None:
    with tracked_run("prepare", Knobs()) as before:
        mlflow.log_metric("accuracy", 0.5)
    script = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the transaction ends
database.execute("DELETE FROM metrics")
database.execute("CREATE TABLE rows AS SELECT zeroblob(100000)")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "mlflow.db")], check=False)
    assert (tmp_path / "mlflow.db-journal").stat().st_size > 0
    with tracked_run("prepare", Knobs()):
        pass
    assert find_run(before, "prepare").data.metrics["accuracy"] == 0.5


@pytest.mark.parametrize("name", ["a%20b%x", "q'uo\"te", "a#b?c", "sp ace", "co:lon", "umlaut-ä"])
def test_a_store_in_a_folder_of_any_name_keeps_its_artifacts_beside_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy

    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    mlflow.set_tracking_uri(str(sqlalchemy.URL.create("sqlite", database=str(folder / "mlflow.db"))))
    mlflow.set_registry_uri(mlflow.get_tracking_uri())
    with tracked_run("prepare", Knobs()) as run_id:
        mlflow.log_text("here", "where.txt")
    assert fetch_artifact(run_id, "where.txt") == folder / "mlruns" / "0" / run_id / "artifacts" / "where.txt"
    assert fetch_artifact(run_id, "where.txt").read_text() == "here"
    assert sqlalchemy.make_url(study_storage()).database == str(folder / "studies.db")


def test_a_lock_at_the_start_is_waited_for(store: str, tmp_path: Path) -> None:
    with locked(tmp_path / "mlflow.db", seconds=1.5), tracked_run("prepare", Knobs()) as run_id:
        pass
    assert find_run(run_id, "prepare").info.status == "FINISHED"


def test_a_lock_in_the_middle_is_waited_for(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself would give up after 20 seconds, whatever was told to the connection before."""
    with tracked_run("prepare", Knobs()) as run_id, locked(tmp_path / "mlflow.db", seconds=1.5):
        mlflow.log_metric("accuracy", 0.5)
    assert find_run(run_id, "prepare").data.metrics["accuracy"] == 0.5
    asked: list[int] = []
    monkeypatch.setattr(sqlite, "PATIENCE", 77)
    with mlflow.MlflowClient()._tracking_client.store.ManagedSessionMaker() as session:
        import sqlalchemy

        asked.append(session.execute(sqlalchemy.text("PRAGMA busy_timeout")).scalar_one())
    assert asked == [77_000]


def test_a_lock_that_stays_is_one_sentence_and_what_was_computed_is_kept(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.2)
    with (
        locked(tmp_path / "mlflow.db"),
        pytest.raises(InputError, match="is locked by another process"),
        tracked_run("prepare", Knobs()),
    ):
        pass

    def lose_the_store() -> None:
        with tracked_run("finetune", Knobs()):
            journal = hold_checkpoint("finetune", Knobs(), suffix=".jsonl")
            journal.write_text("computed")
            with locked(tmp_path / "mlflow.db"):
                mlflow.log_metric("accuracy", 0.5)

    with pytest.raises(InputError, match=r"is locked by another process; .*; what was computed is kept"):
        lose_the_store()
    assert [file.read_text() for file in (tmp_path / "cache" / "checkpoints").glob("*.jsonl")] == ["computed"]


def test_a_checkpoint_goes_once_the_run_is_finished_in_the_store(store: str, tmp_path: Path) -> None:
    with tracked_run("finetune", Knobs()) as run_id:
        journal = hold_checkpoint("finetune", Knobs())
        journal.write_text("computed")
        (journal.with_name(f"{journal.stem}-1.pt")).write_text("a stage")
    assert list(journal.parent.glob("*.pt")) == []
    assert find_run(run_id, "finetune").info.status == "FINISHED"


def test_a_store_that_is_lost_at_the_very_end_costs_nothing(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_the_store() -> None:
        with tracked_run("finetune", Knobs()):
            journals.append(hold_checkpoint("finetune", Knobs()))
            journals[0].write_text("computed")
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")

    journals: list[Path] = []
    with pytest.raises(InputError, match="does not answer; what was computed is kept"):
        lose_the_store()
    assert journals[0].read_text() == "computed"
    mlflow.set_tracking_uri(store)


def test_a_deleted_run_is_not_there(store: str) -> None:
    with tracked_run("pretrain", Knobs()) as run_id:
        pass
    mlflow.MlflowClient().delete_run(run_id)
    for name in (run_id, run_id[:12], "last"):
        with pytest.raises(InputError, match="no pretrain run"):
            find_run(name, "pretrain")


def test_a_store_is_followed_where_its_folder_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from registry.versions import resolve_onnx
    from tests.registry.conftest import NAME, register_colours

    def open_in(folder: Path) -> None:
        mlflow.set_tracking_uri(
            make_store(folder) if not (folder / "mlflow.db").exists() else f"sqlite:///{folder}/mlflow.db"
        )
        mlflow.set_registry_uri(mlflow.get_tracking_uri())

    old, new = tmp_path / "old", tmp_path / "n'ew"
    old.mkdir()
    monkeypatch.chdir(tmp_path)
    open_in(old)
    with tracked_run("pretrain", Knobs()) as first:
        mlflow.log_text("weights", "backbone/weights.txt")
    version = register_colours(tmp_path)
    beside = (old / "mlruns-of-ann").as_uri()
    mlflow.create_experiment("beside", artifact_location=beside)
    old.rename(new)
    open_in(new)
    with tracked_run("pretrain", Knobs()) as second:
        mlflow.log_text("weights", "backbone/weights.txt")
    for run_id in (first, second):
        assert fetch_artifact(run_id, "backbone") == new / "mlruns" / "0" / run_id / "artifacts" / "backbone"
    assert resolve_onnx(f"models:/{NAME}/{version.version}").is_file()
    assert not old.exists()
    assert "note: the artifacts that were in file://" in capsys.readouterr().err
    assert mlflow.get_experiment_by_name("beside").artifact_location == beside, "a folder that only begins alike"
    # A copy beside a store that is still there changes nothing in it.
    shutil.copytree(new, old)
    open_in(old)
    prepare_store()
    assert fetch_artifact(first, "backbone").is_relative_to(new)
    assert "note:" not in capsys.readouterr().err
