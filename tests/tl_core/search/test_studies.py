"""Where studies are kept: several processes on one of them."""

from __future__ import annotations

from multiprocessing import Queue, get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tl_core.search.studies import build_study

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

N_WAITING = 60


def take_half(storage: str, start: Barrier, taken: Queue[list[int]]) -> None:
    study = build_study("shared", storage, 0)
    numbers = []
    for _ in range(N_WAITING // 2):
        start.wait(60)  # at the same moment, each time
        numbers.append(study.ask().number)
    taken.put(numbers)


@pytest.mark.parametrize("kind", ["sqlite:///", "journal:"])
def test_processes_never_begin_the_same_waiting_trial(kind: str, tmp_path: Path) -> None:
    storage = f"{kind}{tmp_path / 'studies'}"
    study = build_study("shared", storage, 0)
    for number in range(N_WAITING):
        study.enqueue_trial({"number": number})
    spawn = get_context("spawn")
    start, taken = spawn.Barrier(2), spawn.Queue()
    processes = [spawn.Process(target=take_half, args=(storage, start, taken)) for _ in range(2)]
    for process in processes:
        process.start()
    numbers = [*taken.get(timeout=120), *taken.get(timeout=120)]
    for process in processes:
        process.join()
    assert sorted(numbers) == list(range(N_WAITING))
