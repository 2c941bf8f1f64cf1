"""A disk that is full: a sentence, no half-written file, and once there is room the same call succeeds."""

from __future__ import annotations

import csv
import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipelines import prepare
from pipelines.command_line.command import run_command_line
from pipelines.store.journal import append_journal, read_journal
from serving.batch import Options
from serving.job import write_predictions
from serving.model import OnnxClassifier
from serving.sources import open_source
from tests.conftest import write_colour_images
from tests.serving.conftest import METADATA, write_model
from tests.tl_core.fewshot.test_finetuner import LINEAR_PROBE, NOISE, PIXELS, answers, draw, tuner
from tl_core.data.dataset import load_dataset
from tl_core.errors import InputError
from tl_core.fewshot.results import EpisodeResult
from tl_core.files import disk_full_as_input_error
from tl_core.training.loop import start_training
from tl_core.training.optimizers import FitOptions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

Resize = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A small disk, and a function that makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here ({done.stderr.strip()})")
    yield folder, lambda size: _remount(folder, size)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_cache_without_room(disk: tuple[Path, Resize], tmp_path: Path) -> None:
    folder, resize = disk
    data = write_colour_images(tmp_path / "data", n_per_class=40, size=32)
    with pytest.raises(InputError, match=r"cannot be written .No space left on device.; make room there and repeat"):
        load_dataset(str(data), 64, cache_dir=folder)
    assert files(folder) == []
    resize("20m")
    again = load_dataset(str(data), 64, cache_dir=folder)
    expected = load_dataset(str(data), 64, cache_dir=tmp_path / "other")
    assert again.fingerprint == expected.fingerprint
    assert (again.images == expected.images).all()


def test_a_command_without_room_is_a_sentence(
    disk: tuple[Path, Resize],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    store: str,
) -> None:
    data = write_colour_images(tmp_path / "data", n_per_class=40, size=32)
    monkeypatch.setenv("TRANSFER_LAB_CACHE", str(disk[0]))
    monkeypatch.setattr(sys, "argv", ["prepare", "--data", str(data), "--image_size", "64"])
    with pytest.raises(SystemExit) as stop:
        run_command_line(prepare.PrepareConfig, prepare.run)
    assert stop.value.code == 2
    assert "No space left on device" in capsys.readouterr().err
    disk[1]("20m")
    run_command_line(prepare.PrepareConfig, prepare.run)


def test_a_checkpoint_without_room_leaves_the_one_before(disk: tuple[Path, Resize]) -> None:
    folder, resize = disk
    options = FitOptions(epochs=1, steps_per_epoch=1, max_lr=0.1, optimizer="adamw")
    path = folder / "checkpoint.pt"
    start_training(torch.nn.Linear(8, 8), options).save(path)
    before = path.read_bytes()
    large = start_training(torch.nn.Linear(300, 300), options)
    with pytest.raises(InputError, match="No space left on device"):
        large.save(path)
    assert (path.read_bytes(), files(folder)) == (before, ["checkpoint.pt"])
    resize("20m")
    large.save(path)
    start_training(torch.nn.Linear(300, 300), options).load(path)


def append_all(journal: Path, results: list[EpisodeResult]) -> None:
    for result in results:
        append_journal(journal, result)


def test_a_journal_without_room_keeps_what_it_has(disk: tuple[Path, Resize]) -> None:
    folder, resize = disk
    episodes = draw(NOISE, 2)
    results = list(tuner(PIXELS).run_episodes(episodes, LINEAR_PROBE))
    journal = folder / "journal.jsonl"
    append_journal(journal, results[0])
    (folder / "other").write_bytes(b"x" * 190_000)
    with pytest.raises(InputError, match="No space left on device"):
        append_all(journal, [results[1]] * 1000)
    resize("20m")
    read = list(read_journal(journal, episodes))
    assert [answers(result) for result in read] == [answers(result) for result in results[: len(read)]]
    assert len(read) >= 1


def test_predictions_without_room(disk: tuple[Path, Resize], tmp_path: Path) -> None:
    folder, resize = disk
    pictures = write_colour_images(tmp_path / "pictures", n_per_class=500, size=16)
    model = OnnxClassifier.load(write_model(tmp_path / "model.onnx", METADATA), n_threads=1)
    output = folder / "out.csv"

    def predict(to: Path) -> None:
        with open_source(str(pictures)) as source:
            write_predictions(model, source, to, Options(top_k=3))

    with pytest.raises(InputError, match=r"cannot be written .No space left on device"):
        predict(output)
    assert not output.exists()
    resize("20m")
    predict(output)
    predict(tmp_path / "expected.csv")
    assert output.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    with output.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 1500


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/their/file"), "/their/file may not be read or written"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "a file may not be read or written by this user"),
        (OSError(errno.EFBIG, "File too large"), "a file cannot be written .File too large.; make room there"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "a file cannot be written .Disk quota exceeded.; make room"),
        (OSError(errno.EROFS, "Read-only file system"), "a file cannot be written .Read-only file system."),
    ],
)
def test_limits_of_the_machine_are_sentences(error: OSError, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence), disk_full_as_input_error("a file"):
        raise error
