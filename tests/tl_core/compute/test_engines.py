"""Workers of a cluster give the answers of this process, to the last bit, and survive the death of one of them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import ROOT
from tests.tl_core.fewshot.test_finetuner import FULL, HALF, NOISE, RESNET, answers, draw, tuner
from tl_core.compute.engines import open_workers
from tl_core.errors import InputError
from tl_core.fewshot.parallel import run_episodes
from tl_core.recipes.engine import LOCAL, Engine
from tl_core.recipes.finetune import FinetuneRecipe

N_NODES = 3
RAY, DASK = Engine("ray"), Engine("dask")

cluster = pytest.mark.cluster
quiet = pytest.mark.filterwarnings("ignore")  # Ray and Dask warn of ports, temporary folders and each other


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"the extra {extra} is not installed")


needs_ray, needs_dask = needs("ray", "ray"), needs("distributed", "dask")


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[Engine]:
    """Three nodes of Ray, as processes of their own on this machine."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_raylet_start_wait_time_s"] = "120"  # noqa: SIM112 - Ray's spelling

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(N_NODES - 1):
        nodes.add_node(num_cpus=1)
    yield Engine("ray", nodes.address)
    nodes.shutdown()


@pytest.fixture(scope="module")
def dask_workers() -> Iterator[Engine]:
    """Three workers of Dask, each a process."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=N_NODES, threads_per_worker=1, dashboard_address=None) as workers:
        yield Engine("dask", workers.scheduler_address)


def scores(engine: Engine, recipe: FinetuneRecipe, n: int = 6) -> list[object]:
    return [answers(result) for result in run_episodes(tuner(RESNET), draw(NOISE, n), recipe, 0, engine)]


def node_and_process(shared: np.ndarray, index: int) -> tuple[int, str, int, float]:
    import ray

    return index, ray.get_runtime_context().get_node_id(), os.getpid(), float(shared.sum())


def die_once(shared: str, index: int) -> int:
    """The worker of the third call is killed, once; every call leaves a line."""
    marker = Path(shared, "killed")
    if index == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    with Path(shared, "done").open("a") as file:
        file.write(f"{index}\n")
    return index * index


@cluster
@quiet
@needs_ray
@pytest.mark.parametrize("recipe", [HALF, FULL], ids=["half", "full"])
def test_three_nodes_of_ray_give_the_answers_of_one_process(ray_nodes: Engine, recipe: FinetuneRecipe) -> None:
    assert scores(ray_nodes, recipe) == scores(LOCAL, recipe)


@cluster
@quiet
@needs_dask
@pytest.mark.parametrize("recipe", [HALF, FULL], ids=["half", "full"])
def test_workers_of_dask_give_the_answers_of_one_process(dask_workers: Engine, recipe: FinetuneRecipe) -> None:
    assert scores(dask_workers, recipe) == scores(LOCAL, recipe)


@cluster
@quiet
@needs_ray
def test_the_work_is_spread_over_the_nodes(ray_nodes: Engine) -> None:
    with open_workers(ray_nodes, 0, np.ones(100_000)) as workers:
        assert workers.n == N_NODES
        found = list(workers.run(node_and_process, ((index,) for index in range(12))))
    assert [index for index, *_ in found] == list(range(12))
    assert len({node for _, node, *_ in found}) > 1  # Ray spreads workers as well as it can, and promises no more
    assert {total for *_, total in found} == {100_000.0}


@cluster
@quiet
@needs_ray
def test_a_worker_of_ray_that_is_killed_loses_nothing(ray_nodes: Engine, tmp_path: Path) -> None:
    _killed_worker_loses_nothing(ray_nodes, tmp_path)


@cluster
@quiet
@needs_dask
def test_a_worker_of_dask_that_is_killed_loses_nothing(dask_workers: Engine, tmp_path: Path) -> None:
    _killed_worker_loses_nothing(dask_workers, tmp_path)


def _killed_worker_loses_nothing(engine: Engine, folder: Path) -> None:
    with open_workers(engine, 0, str(folder)) as workers:
        found = list(workers.run(die_once, ((index,) for index in range(12))))
    assert found == [index * index for index in range(12)]
    assert (folder / "killed").exists()


def test_a_process_of_this_machine_that_is_killed_is_one_sentence(tmp_path: Path) -> None:
    with open_workers(LOCAL, 2, str(tmp_path)) as workers, pytest.raises(InputError, match="repeat the command"):
        list(workers.run(die_once, ((index,) for index in range(8))))


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_an_engine_that_is_not_installed_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, {"ray": "ray", "dask": "distributed"}[name], None)
    with (
        pytest.raises(InputError, match=f"engine is {name}, which is not installed"),
        open_workers(Engine(name), 2, None),  # type: ignore[arg-type]
    ):
        pass


def test_an_address_without_a_cluster_is_refused() -> None:
    with pytest.raises(InputError, match=r"address is .*, but engine is local"):
        Engine(address="10.0.0.5:6379")


@cluster
@quiet
@needs_dask
def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(InputError, match="no dask cluster can be used at tcp:"),
        open_workers(Engine("dask", "tcp://127.0.0.1:1"), 2, None),
    ):
        pass


LOSE_PARENT = """
import sys
from tests.tl_core.compute.test_engines import work_for_a_minute
from tl_core.compute.engines import open_workers
from tl_core.recipes.engine import LOCAL

with open_workers(LOCAL, 2, None) as workers:
    list(workers.run(work_for_a_minute, [(sys.argv[1], n) for n in range(2)]))
"""


def work_for_a_minute(shared: None, folder: str, number: int) -> None:
    Path(folder, f"{os.getpid()}").touch()
    time.sleep(60)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_workers_end_soon_after_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", LOSE_PARENT, str(tmp_path)], cwd=ROOT)
    deadline = time.monotonic() + 100
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [psutil.Process(int(path.name)) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
