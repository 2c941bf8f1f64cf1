"""The shape of an episode."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.errors import InputError
from tl_core.recipes.checks import check_range


@dataclass(frozen=True)
class EpisodeShape:
    """Size of an episode; 0 leaves a number to what the target allows."""

    n_way: int = 5
    """Classes in an episode; 0 takes all of the target's."""
    n_shot: int = 5
    """Support (training) images per class; 0 takes 5, or half of what a small class has."""
    n_query: int = 15
    """Query (test) images per class; 0 takes 15, or what a small class has left."""

    def __post_init__(self) -> None:
        check_range("n_way", self.n_way, 0, 10_000)
        if self.n_way == 1:
            raise InputError("expected n_way as 0 (all classes), or from 2 to 10000, got 1")
        check_range("n_shot", self.n_shot, 0, 100_000)
        check_range("n_query", self.n_query, 0, 100_000)


OPEN_SHAPE = EpisodeShape(0, 0, 0)
"""All is left to the target."""
