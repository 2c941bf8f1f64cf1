"""Checkpoints of runs in runs: what is left of them, and when they go."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.store.checkpoints import checkpoints_of_run, hold_checkpoint


@dataclass(frozen=True)
class Work:
    amount: int = 1


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_LAB_CACHE", str(tmp_path))


def test_an_outer_run_knows_what_is_left_of_the_runs_in_it() -> None:
    with suppress(OSError), checkpoints_of_run() as outer, checkpoints_of_run() as inner:
        path = hold_checkpoint("finetune", Work())
        assert not inner.any_left(), "a lock is nothing that is done"
        path.write_text("three episodes")
        raise OSError("away")
    assert outer.any_left()
    assert path.is_file()


def test_files_of_the_work_go_with_its_end_and_others_stay() -> None:
    with checkpoints_of_run() as held:
        path, other = hold_checkpoint("train", Work()), hold_checkpoint("train", Work(2))
        for file in (path, path.with_name(f"{path.stem}-stage1.pt"), other):
            file.write_text("weights")
        neighbour = path.with_name("train-of-somebody-else.pt")
        neighbour.write_text("weights")
    assert not held.any_left()
    assert [file.name for file in path.parent.glob("*.pt")] == [neighbour.name]


def test_other_data_of_the_same_name_is_other_work() -> None:
    with checkpoints_of_run():
        paths = {hold_checkpoint("train", Work(), content) for content in ("first", "second")}
    assert len(paths) == 2
