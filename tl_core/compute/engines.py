"""Engines that share work out: processes of this machine, or the workers of a Ray or Dask cluster.

joblib makes the calls, an engine is a backend of joblib, and this is the only place that knows which. A cluster's
worker that dies is replaced and its call is made again, so that results are neither lost nor doubled.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from tl_core.errors import InputError
from tl_core.recipes.engine import Engine

_AT_ONCE = 32  # calls for each worker; where results come by the block, as many are lost at most
_PARENT_POLL = 1.0  # seconds
_RETRIES = 10  # of one call, so that a call which kills every worker ends at some time


@dataclass(frozen=True)
class Workers:
    """Processes that are ready to work.

    Attributes:
        n: how many there are.
    """

    n: int
    _parallel: Parallel
    _shared: Any

    def run(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """`function(shared, *call)` for each call, in their order; some calls for each worker are taken at a time.

        Raises:
            InputError: a process of this machine was killed.
        """
        remaining = iter(calls)
        try:
            while block := list(itertools.islice(remaining, self.n * _AT_ONCE)):
                yield from self._parallel(delayed(_call)(function, self._shared, call) for call in block)
        except TerminatedWorkerError as error:
            raise InputError(
                "a worker process was killed, perhaps for want of memory; repeat the command, with fewer workers"
            ) from error


@contextmanager
def open_workers(engine: Engine, n: int, shared: Any) -> Iterator[Workers]:
    """Start workers, or join those of a cluster; `n` is how many of them to use, 0 all.

    Args:
        shared: what all calls need; it travels once to each machine (Ray) or process (Dask). Between processes of one
            machine mapped files travel as their names.

    Raises:
        InputError: the engine is not installed, or no cluster answers at its address.
    """
    backend: dict[str, Any] = {}
    with ExitStack() as stack:
        if engine.engine == "local":
            n = n or cpu_count()
        elif engine.engine == "ray":
            n, backend, shared = stack.enter_context(_ray(engine.address, n, shared))
        else:
            n, backend = stack.enter_context(_dask(engine.address, n, shared))
        with parallel_config(**backend):  # no longer than it takes to be chosen: others use joblib too
            # Ray's backend gives results by the block.
            parallel = Parallel(n, return_as="list" if engine.engine == "ray" else "generator")
        yield Workers(n, stack.enter_context(parallel), shared)


def _call(function: Callable[..., Any], shared: Any, call: tuple[Any, ...]) -> Any:
    if multiprocessing.current_process().name.startswith("Loky"):
        _end_with_parent()
    return function(shared.value() if isinstance(shared, _InRay) else shared, *call)


@cache
def _end_with_parent() -> None:
    """Have this worker end soon after the process that it works for, which may be killed without a word."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class _InRay:
    """A value in Ray's object store, where each machine holds it once."""

    reference: Any

    def value(self) -> Any:
        import ray

        return ray.get(self.reference)


@contextmanager
def _ray(address: str, n: int, shared: Any) -> Iterator[tuple[int, dict[str, Any], _InRay]]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise _not_installed("ray") from error
    here: dict[str, Any] = {} if address else {"num_cpus": n or cpu_count(), "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, **here)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_answer("ray", address, error) from error
    try:
        register_ray()
        cores = int(ray.cluster_resources().get("CPU", 0))
        # Without a claim on a core, so that the workers of a machine that is gone start again on those that are left.
        workers = {"scheduling_strategy": "SPREAD", "max_restarts": _RETRIES, "max_task_retries": _RETRIES}
        yield min(n or cores, cores), {"backend": "ray", "ray_remote_args": workers}, _InRay(ray.put(shared))
    finally:
        ray.shutdown()


@contextmanager
def _dask(address: str, n: int, shared: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise _not_installed("dask") from error
    with ExitStack() as stack:
        try:
            cluster = address or stack.enter_context(
                LocalCluster(n_workers=n or cpu_count(), threads_per_worker=1, dashboard_address=None)
            )
            client = stack.enter_context(Client(cluster))
            client.wait_for_workers(1, timeout=30)
        except (OSError, ValueError, TimeoutError) as error:
            raise _no_answer("dask", address, error) from error
        yield sum(client.ncores().values()), {"backend": "dask", "client": client, "scatter": [shared]}


def _not_installed(name: str) -> InputError:
    return InputError(f"engine is {name}, which is not installed; install transfer-lab[{name}], or give engine=local")


def _no_answer(name: str, address: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"no {name} cluster can be used at {address or 'this machine'} ({reason})")
