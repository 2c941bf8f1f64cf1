"""The gate: may a challenger take the champion's place?

Two models are compared on the same episodes, by the interval of the paired difference of their accuracies; besides,
the challenger's file must answer as torch does and keep within its budgets. What could not be read never promotes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tl_core.scoring import paired_difference


@dataclass(frozen=True)
class Evidence:
    """How a version was scored.

    Attributes:
        episodes: what the episodes were: pool fingerprint, seed and shape, as one string.
        accuracies: accuracy by episode number.
    """

    episodes: str
    accuracies: Mapping[int, float]


@dataclass(frozen=True)
class Measured:
    """What the export found out about a file; None where it cannot be read.

    Attributes:
        parity_holds: whether the file answers as torch does.
        megabytes: its size.
        latency_ms: median milliseconds from one image file to its probabilities.
    """

    parity_holds: bool | None
    megabytes: float | None
    latency_ms: float | None


@dataclass(frozen=True)
class Budgets:
    """What a champion may cost; 0 is any amount."""

    max_megabytes: float = 0.0
    max_latency_ms: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why, in one sentence."""

    promote: bool
    reason: str


def check_file(measured: Measured, budgets: Budgets) -> Decision:
    """Promote if the file may be a champion, whatever its accuracy."""
    if measured.parity_holds is None:
        return Decision(False, "the parity of the exported file cannot be read")
    if not measured.parity_holds:
        return Decision(False, "the exported file does not answer as torch does")
    for value, limit, unit in (
        (measured.megabytes, budgets.max_megabytes, "MB"),
        (measured.latency_ms, budgets.max_latency_ms, "ms per image"),
    ):
        if limit and value is None:
            return Decision(False, f"how many {unit} the file takes cannot be read, and {limit:g} is the budget")
        if limit and value is not None and not value <= limit:  # refuses a NaN too
            return Decision(False, f"the file takes {value:.3g} {unit}, the budget is {limit:g}")
    return Decision(True, "the file holds parity and its budgets")


def decide_first(challenger: Evidence | None) -> Decision:
    """Promote a challenger where there is no champion, if only its scores can be read."""
    if challenger is None:
        return Decision(False, "the challenger has no readable scores")
    return Decision(True, "there was no champion")


def decide(challenger: Evidence | None, champion: Evidence | None, tolerance: float) -> Decision:
    """Promote if the lower end of the paired difference challenger - champion is above -tolerance.

    Args:
        challenger, champion: None where the scores could not be read.
        tolerance: how much accuracy, as a fraction, may be lost at worst.
    """
    if challenger is None:
        return Decision(False, "the challenger has no readable scores")
    if champion is None:
        return Decision(False, "the champion's scores cannot be read")
    if challenger.episodes != champion.episodes:
        return Decision(False, "challenger and champion were scored on different episodes")
    shared = sorted(challenger.accuracies.keys() & champion.accuracies.keys())
    if len(shared) < 2:
        return Decision(False, f"challenger and champion share {len(shared)} episode(s); at least 2 are needed")
    difference = paired_difference(
        [challenger.accuracies[episode] for episode in shared], [champion.accuracies[episode] for episode in shared]
    )
    promote = difference.low > -tolerance
    sign = "above" if promote else "not above"
    return Decision(
        promote,
        f"paired difference {difference.percent()}, lower end {100 * difference.low:.2f} % is {sign} "
        f"-{100 * tolerance:.2f} %",
    )
