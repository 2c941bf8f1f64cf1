"""Printing decides nothing: closed pipes, full disks, consoles without letters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WORK = """
import sys
from dataclasses import dataclass
from pathlib import Path
from pipelines.command_line.command import run_command_line
from tl_core.errors import InputError

@dataclass(frozen=True, kw_only=True)
class Config:
    file: str
    fail: bool = False

def work(config):
    for _ in range(2000):
        print("the letters \\u03b1\\u03b2\\u03b3 of a class", flush=True)
    print("warning: \\u03b1", file=sys.stderr)
    if config.fail:
        raise InputError("expected more, got \\u03b1")
    Path(config.file).write_text("done")
    return ""

run_command_line(Config, work, "work")
"""


def started(tmp_path: Path, *arguments: str, stdout: object, **variables: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORK, "--file", str(tmp_path / "done"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=environment)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_does_not_end_the_work(tmp_path: Path, unbuffered: str) -> None:
    process = started(tmp_path, stdout=subprocess.PIPE, PYTHONUNBUFFERED=unbuffered)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"the letters")
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert (tmp_path / "done").read_text() == "done"
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has /dev/full")
def test_a_full_disk_behind_the_output_is_said_once_all_is_done(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = started(tmp_path, stdout=full)
        _, errors = process.communicate()
    assert process.returncode == 2
    assert (tmp_path / "done").read_text() == "done"
    assert errors.decode().splitlines()[-1] == (
        "error: all is done, but what was to be printed could not be written (No space left on device)"
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_console_without_greek_letters_shows_their_numbers(tmp_path: Path, encoding: str) -> None:
    process = started(tmp_path, stdout=subprocess.PIPE, PYTHONIOENCODING=encoding)
    shown, errors = process.communicate()
    assert process.returncode == 0
    assert shown.splitlines()[0] == rb"the letters \u03b1\u03b2\u03b3 of a class"
    assert rb"warning: \u03b1" in errors


def test_an_error_is_exit_code_2_whoever_reads(tmp_path: Path) -> None:
    process = started(tmp_path, "--fail", "True", stdout=subprocess.PIPE, PYTHONIOENCODING="ascii")
    with process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == rb"error: expected more, got \u03b1"
    assert process.returncode == 2


def test_closed_streams_end_nothing(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -c '{WORK}' --file {tmp_path / 'done'} >&- 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(["sh", "-c", command], env=environment, check=False).returncode == 0
    assert (tmp_path / "done").read_text() == "done"
