"""Storages as the world has them: looked at before anything is written, and one sentence where they do not do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from tests.conftest import locked, make_store
from tl_core.errors import InputError
from tl_core.search import storages
from tl_core.search.pareto_front import build_front_study
from tl_core.search.studies import Direction, build_study, check_study_settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SETTING = {"pool": "abc"}


def search_in(storage: str) -> optuna.Study:
    study = build_study("mine", storage, 0)
    check_study_settings(study, SETTING)
    return study


def contents(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


@pytest.mark.parametrize(
    ("directions", "got"),
    [
        (["minimize"], "one that is to minimize"),
        (["maximize", "minimize"], "one that is to maximize and minimize"),
        (["maximize"], "one that another program began"),
    ],
)
def test_nothing_is_written_into_a_strangers_study(directions: list[Direction], got: str, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    study = optuna.create_study(study_name="mine", storage=storage, directions=directions)
    study.add_trial(
        optuna.trial.create_trial(
            params={"depth": 3},
            distributions={"depth": optuna.distributions.IntDistribution(1, 9)},
            values=[0.5] * len(directions),
        )
    )
    before = contents(tmp_path / "studies.db")
    with pytest.raises(InputError, match=f"got {got}; give another study name"):
        search_in(storage)
    assert contents(tmp_path / "studies.db") == before


def test_a_search_and_a_pareto_front_do_not_share_a_study(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    search_in(storage)
    with pytest.raises(InputError, match="one that is to maximize"):
        build_front_study("mine", storage, 0)


def test_an_empty_study_that_somebody_created_is_taken(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.create_study(study_name="mine", storage=storage, direction="maximize")
    assert search_in(storage).user_attrs == {"setting": SETTING}


def change(statement: str) -> Callable[[Path], object]:
    def apply(file: Path) -> None:
        optuna.create_study(study_name="other", storage=f"sqlite:///{file}")
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(statement)

    return apply


def cut(file: Path) -> None:
    change("SELECT 1")(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "older": (change("UPDATE alembic_version SET version_num = 'v2.6.0.a'"), "older Optuna .*: optuna storage upgrade"),
    "newer": (change("UPDATE alembic_version SET version_num = 'v99.0.0.a'"), "newer Optuna .*; install that one"),
    "MLflow's": (lambda file: make_store(file.parent), "expected Optuna's tables in .*mlflow.db, got those of another"),
    "cut off": (cut, "is damaged; restore it from a backup"),
    "a text": (lambda file: file.write_text("no database\n" * 1000), "is no SQLite database"),
    "a folder": (lambda file: file.mkdir(), "cannot be opened; expected a file"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_file_that_does_not_do_is_one_sentence_and_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    prepare, sentence = UNFIT[kind]
    file = tmp_path / "mlflow.db"
    prepare(file)
    before = file.read_bytes() if file.is_file() else b""
    with pytest.raises(InputError, match=sentence) as failure:
        search_in(f"sqlite:///{file}")
    assert "\n" not in str(failure.value)
    assert (file.read_bytes() if file.is_file() else b"") == before


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        ("sqlite:////no/such/folder/studies.db", "cannot be opened; expected a file .* in such a folder"),
        ("mysql+pymysql://ann:secret@host/db", r"the driver of mysql\+pymysql://ann:\*\*\*@host/db is not installed"),
        ("redis://localhost:6379", "expected OPTUNA_STORAGE as an address"),
        ("studies.db", "expected OPTUNA_STORAGE as an address .*, got 'studies.db'"),
        ("journal:/no/such/folder/log", "cannot be opened .*; expected a file in a folder that exists"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_sentence(storage: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as failure:
        search_in(storage)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    "text", ["hello\n", '{"op_code": 0, "worker_id": "x", "stu', '[1, 2]\n{"a": 1}\n', "\x00\xff\n"]
)
def test_a_journal_of_something_else_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(InputError, match=r"expected a journal of Optuna in .*, got something else"):
        search_in(f"journal:{tmp_path / 'log'}")


def test_a_lock_is_waited_for_and_one_that_stays_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "studies.db"
    search_in(f"sqlite:///{file}")

    with locked(file, 1):
        assert search_in(f"sqlite:///{file}").user_attrs == {"setting": SETTING}
    monkeypatch.setattr(storages, "PATIENCE", 0.1)
    with locked(file, 60), pytest.raises(InputError, match="is locked by another process"):
        search_in(f"sqlite:///{file}")


def test_a_study_says_what_it_measures(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    assert search_in(storage).metric_names == ["accuracy"]
    assert search_in(storage).metric_names == ["accuracy"]
