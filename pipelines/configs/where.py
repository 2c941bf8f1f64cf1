"""Place of the work; the results are the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.recipes.checks import check_range
from tl_core.recipes.choices import Device


@dataclass(frozen=True, kw_only=True)
class Where:
    """Place of the work."""

    device: Device = "auto"
    """Device to compute on."""


@dataclass(frozen=True, kw_only=True)
class SharedWhere:
    """Place of the work, and the number of processes."""

    device: Device = "auto"
    """Device to compute on."""
    workers: int = 0
    """Processes, each with one thread; 0 is one per core. The results are the same for any number."""

    def __post_init__(self) -> None:
        check_range("workers", self.workers, 0, 4096)
