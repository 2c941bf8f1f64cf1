"""The gate: may a challenger take the champion's place?

Two models are compared on the same episodes, by the interval of the paired difference of their accuracies. What
could not be read is never taken for a good score.
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
class Decision:
    """Whether to promote, and why, in one sentence."""

    promote: bool
    reason: str


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
