"""Engine that shares work out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from tl_core.errors import InputError
from tl_core.recipes.checks import check_choice
from tl_core.recipes.choices import EngineName


@dataclass(frozen=True)
class Engine:
    """Engine that shares work out; the results are the same."""

    engine: EngineName = "local"
    """Processes of this machine (local), or the workers of a cluster (ray, dask)."""
    address: str = ""
    """Where the cluster is, such as 10.0.0.5:6379 (ray) or tcp://10.0.0.5:8786 (dask); empty starts one here."""

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, get_args(EngineName))
        if self.engine == "local" and self.address:
            raise InputError(f"address is {self.address!r}, but engine is local; give engine=ray or engine=dask")


LOCAL = Engine()
