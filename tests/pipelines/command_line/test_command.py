"""What a command line says: to people, to machines, and to terminals without colours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest

from pipelines import prepare
from pipelines.command_line.command import run_command_line
from pipelines.command_line.last_words import conclude
from pipelines.prepare import PrepareConfig
from tl_core.errors import DataWarning

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ROOT = Path(__file__).resolve().parents[3]


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines that `prepare` prints to stdout."""
    monkeypatch.setattr(sys, "argv", ["prepare.py", *arguments])
    run_command_line(PrepareConfig, prepare.run)
    return capsys.readouterr().out.splitlines()


def test_the_last_line_for_machines_has_the_run_and_its_metrics(
    colours: Path, store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = json.loads(said(monkeypatch, capsys, "--data", str(colours), "--json")[-1])
    run = mlflow.MlflowClient().get_run(last["run_id"])
    assert last["kind"] == "prepare"
    assert last["metrics"] == run.data.metrics
    assert last["metrics"]["n_images"] == 60


def test_the_last_lines_for_people_have_the_numbers_and_the_run(
    colours: Path, store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(monkeypatch, capsys, "--data", str(colours))
    table = dict(line.split(maxsplit=1) for line in lines[lines.index("") + 1 :] if line)
    assert (table["n_images"], table["n_classes"]) == ("60", "3")
    assert mlflow.MlflowClient().get_run(table["run"]).info.status == "FINISHED"


def test_an_error_for_machines_is_one_line_of_json_and_exit_code_2(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare.py", "--image_size", "3", "--json"])
    with pytest.raises(SystemExit) as stop:
        run_command_line(PrepareConfig, prepare.run)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert json.loads(output.out) == {"error": "expected image_size from 8 to 1024, got 3"}
    assert output.err == "error: expected image_size from 8 to 1024, got 3\n"


def test_a_warning_about_the_data_is_one_sentence_printed_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn_twice(config: PrepareConfig) -> None:
        for _ in range(2):
            warnings.warn("most images of good are nearly the same", DataWarning, stacklevel=1)

    monkeypatch.setattr(sys, "argv", ["prepare.py", "--data", "parts"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        run_command_line(PrepareConfig, warn_twice)
    assert capsys.readouterr().err == "warning: most images of good are nearly the same\n"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_without_colours_gets_none(no_color: str, coloured: bool) -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "pipelines.rollback", "--help"]
    with subprocess.Popen(command, stdout=theirs, env=environment, cwd=ROOT) as process:
        os.close(theirs)
        text = b""
        with suppress(OSError):  # how a terminal ends
            while part := os.read(ours, 1000):
                text += part
    os.close(ours)
    assert process.returncode == 0
    assert b"usage" in text
    assert (b"\x1b[" in text) == coloured


def test_the_report_is_named_first_and_from_here(
    colours: Path, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with mlflow.start_run() as run:
        mlflow.set_tag("kind", "finetune")
        mlflow.log_text("page", "report.html")
        mlflow.log_metric("accuracy", 0.5)
    empty, *lines = conclude(run.info.run_id, as_json=False).splitlines()
    assert empty == ""
    assert lines[0].split() == ["report", f"mlruns/0/{run.info.run_id}/artifacts/report.html"]
    assert Path(lines[0].split()[1]).read_text() == "page"
    assert lines[-1].split() == ["accuracy", "0.5"]
    assert max(map(len, lines)) <= 80
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert conclude(run.info.run_id, as_json=False).splitlines()[1].split()[1].startswith(f"{tmp_path}/mlruns/")


DROPPED = """
import os, signal, sys, time
from pipelines.command_line.command import run_command_line
from pipelines.prepare import PrepareConfig

class Dying:
    def __del__(self):
        os.kill(os.getpid(), NUMBER)
        for _ in range(1000):  # the handler runs in here
            pass

def run(config):
    Dying()
    time.sleep(60)

sys.argv = ["prepare.py"]
run_command_line(PrepareConfig, run)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_whose_exception_a_finaliser_drops_ends_the_command_all_the_same(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    script = DROPPED.replace("NUMBER", str(int(number)))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler)\n{script}"],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert process.returncode == code, process.stderr
    assert "Exception ignored" not in process.stderr
    assert time.monotonic() - started < 40
