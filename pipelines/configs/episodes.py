"""Number of episodes."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.errors import InputError
from tl_core.recipes.checks import check_range

MOST = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ScoredEpisodes:
    """Number of episodes."""

    n_episodes: int = 20
    """Episodes to average over; the confidence interval shrinks with their square root."""
    until_ci: float = 0.0
    """Stop earlier, once the half-width of the confidence interval is at most this many points; 0 runs all episodes."""

    def __post_init__(self) -> None:
        check_range("n_episodes", self.n_episodes, 1, MOST)
        check_range("until_ci", self.until_ci, 0, 100)


@dataclass(frozen=True, kw_only=True)
class SearchEpisodes:
    """Number of episodes that a trial and the finalists are scored on."""

    n_episodes: int = 20
    """Episodes per trial, the same ones for every trial."""
    final_episodes: int = 40
    """Fresh episodes that the best trials and the base recipe are scored on, before one of them wins."""
    report_episodes: int = 40
    """Episodes of the other half, on which winner and base recipe are scored once, at the end; 0 is none."""

    def __post_init__(self) -> None:
        check_range("n_episodes", self.n_episodes, 1, MOST)
        check_range("final_episodes", self.final_episodes, 2, MOST)
        check_range("report_episodes", self.report_episodes, 0, MOST)
        if self.report_episodes == 1:
            raise InputError("expected report_episodes of 0 (none), or 2 or more, got 1")


@dataclass(frozen=True, kw_only=True)
class PairedEpisodes:
    """Number of episodes that every method is scored on."""

    n_episodes: int = 40
    """Episodes that every method is scored on, the same ones for all."""

    def __post_init__(self) -> None:
        check_range("n_episodes", self.n_episodes, 2, MOST)
