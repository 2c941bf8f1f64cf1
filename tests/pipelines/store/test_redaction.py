"""Passwords are neither logged nor printed."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from pipelines.command_line.command import run_command_line
from pipelines.store.redaction import redact
from pipelines.store.runs import tracked_run
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:s3cret@db:5432/x", "postgresql://ann:***@db:5432/x"),
        ("postgresql+psycopg://ann:s3:c@db/x", "postgresql+psycopg://ann:***@db/x"),
        ("no run in http://u:p@h/ and https://v:q@i", "no run in http://u:***@h/ and https://v:***@i"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("postgresql://ann:se/cr@et@db/x", "postgresql://ann:***@db/x"),
        ("mysql://ann:12/34@db/x", "mysql://ann:***@db/x"),
        ("redis://:s3cret@db:1, redis://:other@db:2", "redis://:***@db:1, redis://:***@db:2"),
        ("postgresql://db/x?user=ann&password=s3cret", "postgresql://db/x?user=ann&password=***"),
        ("postgresql://db/x?sslpassword=a%20b&sslmode=on", "postgresql://db/x?sslpassword=***&sslmode=on"),
        ("mssql://?odbc_connect=DRIVER%3Dx%3BPWD%3Ds3cret", "mssql://?odbc_connect=***"),
        ("https://s3/x?X-Amz-Credential=k&X-Amz-Signature=s", "https://s3/x?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("host=db password=s3cret dbname=x", "host=db password=*** dbname=x"),
        ("http://127.0.0.1:5000/#/models/x@champion", "http://127.0.0.1:5000/#/models/x@champion"),
        ("models:/x@champion", "models:/x@champion"),
        ("/data/token=5/x.png", "/data/token=5/x.png"),
        ("tcp://10.0.0.5:8786", "tcp://10.0.0.5:8786"),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


@dataclass(frozen=True)
class Somewhere:
    address: str = "http://ann:s3cret@host/data"


def test_passwords_are_not_logged(store: str) -> None:
    import mlflow

    with pytest.raises(InputError), tracked_run("any", Somewhere()) as run_id:
        raise InputError(f"nothing at {Somewhere().address}")
    run = mlflow.MlflowClient().get_run(run_id)
    assert run.data.params["address"] == "http://ann:***@host/data"
    assert run.data.tags["error"] == "nothing at http://ann:***@host/data"


def test_passwords_are_not_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Somewhere) -> None:
        raise InputError(f"nothing at {config.address}")

    monkeypatch.setattr("sys.argv", ["any"])
    with pytest.raises(SystemExit):
        run_command_line(Somewhere, fail)
    assert capsys.readouterr().err == "error: nothing at http://ann:***@host/data\n"


def test_bytes_that_are_no_text_are_logged_in_digits(store: str) -> None:
    import mlflow

    from pipelines.store.child_runs import ChildRuns, FinishedRun

    folder = os.fsdecode(b"photos \xff")
    with tracked_run("any", Somewhere(folder), f"classify {folder}") as run_id:
        children = ChildRuns("episode")
        children.add(FinishedRun("episode-0", 0, 1, {"accuracy": 1.0}, {"classes": folder}, {"path": folder}))
        children.close()
    run = mlflow.MlflowClient().get_run(run_id)
    assert run.info.run_name == "classify photos \\udcff"
    assert run.data.params["address"] == "photos \\udcff"
    (child,) = mlflow.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{run_id}'", output_format="list")
    assert (child.data.tags["classes"], child.data.params["path"]) == ("photos \\udcff", "photos \\udcff")
