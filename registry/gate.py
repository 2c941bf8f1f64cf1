"""The gate: may a challenger take the champion's place?

Two models are compared on the same episodes, or on the same test images, by the interval of the paired difference of
their accuracies; besides, the challenger's file must answer as torch does and keep within its budgets. Where the images
have changed since, the champion's own network and recipe, fitted to them, take its place unless their score there is
lower than the champion's was on its own images. What could not be read never promotes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tl_core.scoring.episodes import independent_difference, paired_difference
from tl_core.scoring.images import bootstrap

_FEWEST_RENEWED = 10
"""Episodes without which two means say nothing of each other."""

ScoredOn = Literal["episodes", "test images"]


@dataclass(frozen=True)
class Evidence:
    """Scores of a version.

    Attributes:
        sample: which episodes (pool fingerprint, seed and shape) or which test images (their fingerprint).
        accuracies: by number of the episode; or by position of the test image, 1 where it was classified right, else 0.
        scored_on: what the numbers count.
        method: network, recipe and classes, where they are known.
        pool: fingerprint of the images that the episodes were drawn from.
    """

    sample: str
    accuracies: Mapping[int, float]
    scored_on: ScoredOn = "episodes"
    method: str = ""
    pool: str = ""


@dataclass(frozen=True)
class Measured:
    """Measurements of a file by its export; None where they cannot be read.

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
    """Limits of a champion's size and latency; 0 is none."""

    max_megabytes: float = 0.0
    max_latency_ms: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Decision on a promotion, with its reason in one sentence."""

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
    if challenger.scored_on != champion.scored_on:
        return Decision(
            False, f"the challenger was scored on {challenger.scored_on}, the champion on {champion.scored_on}"
        )
    if challenger.sample != champion.sample:
        return _decide_renewed(challenger, champion, tolerance)
    shared = sorted(challenger.accuracies.keys() & champion.accuracies.keys())
    if len(shared) < 2:
        return Decision(
            False, f"challenger and champion share {len(shared)} {challenger.scored_on}; at least 2 are needed"
        )
    difference, low = _paired(
        [challenger.accuracies[number] for number in shared],
        [champion.accuracies[number] for number in shared],
        challenger.scored_on,
    )
    promote = low > -tolerance
    sign = "above" if promote else "not above"
    return Decision(
        promote,
        f"paired difference {difference}, lower end {100 * low:.2f} % is {sign} -{100 * tolerance:.2f} %",
    )


def _decide_renewed(challenger: Evidence, champion: Evidence, tolerance: float) -> Decision:
    """Of two that were scored on different images: the same method may be renewed, of others nothing is known."""
    different = f"challenger and champion were scored on different {challenger.scored_on}"
    if challenger.scored_on != "episodes":
        return Decision(False, different)
    if not challenger.method or challenger.method != champion.method or challenger.pool == champion.pool:
        return Decision(
            False,
            f"{different}; only other images with the champion's network, recipe and classes renew it: "
            "give the champion's these images first, then compare",
        )
    fewest = min(len(challenger.accuracies), len(champion.accuracies))
    if fewest < _FEWEST_RENEWED:
        return Decision(False, f"{different}, one of them on {fewest}; at least {_FEWEST_RENEWED} are needed")
    difference = independent_difference(list(challenger.accuracies.values()), list(champion.accuracies.values()))
    promote = difference.high >= -tolerance
    sign = "not below" if promote else "below"
    return Decision(
        promote,
        f"the champion's network and recipe on other images: difference {difference.percent()}, "
        f"upper end {100 * difference.high:.2f} % is {sign} -{100 * tolerance:.2f} %",
    )


def _paired(first: list[float], second: list[float], scored_on: ScoredOn) -> tuple[str, float]:
    """The difference as people read it, and the lower end of its interval: as `compare` gives them."""
    if scored_on == "episodes":
        of_episodes = paired_difference(first, second)
        return of_episodes.percent(), of_episodes.low
    of_images = bootstrap(np.subtract(first, second))
    return of_images.percent(), of_images.low
