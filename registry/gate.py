"""The gate: may a challenger take the champion's place?

Besides parity and budgets of the challenger's file, its accuracy must not be worse than that of any champion so far by
more than the tolerance, on the images that both were scored on, with 97.5 % confidence at any number of images. The
rules, in their order:

1. Scores that cannot be read never promote, nor do scores without the content hashes of their images.
2. Scores on episodes, on test images and on out-of-fold images, or on episodes of another shape, are not compared.
3. A challenger with other classes is another model: it is registered under another name.
4. Where challenger and champion share no image, or fewer than `FEWEST_IMAGES`, nothing is known of their difference.
5. More images, renewed images, another backbone or another recipe: the shared images decide.
6. The champions before the present one count too, so that small losses do not add up; one that cannot be compared by
   the rules above is left out by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tl_core.scoring.paired import TAIL, lower_bound

FEWEST_IMAGES = 10
"""Shared images without which two classifiers are not compared."""

ScoredOn = Literal["episodes", "test images", "out-of-fold images"]


@dataclass(frozen=True)
class Evidence:
    """Scores of a version.

    Attributes:
        accuracies: by content hash of the image; of test images 1 or 0, of episodes the mean over them, in [0, 1].
        class_names: sorted.
        task: of episodes their shape, in words; else empty.
        groups: number of each image's group of near-duplicates; images without one are alone.
    """

    accuracies: Mapping[str, float]
    class_names: tuple[str, ...]
    scored_on: ScoredOn = "episodes"
    task: str = ""
    groups: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """Scores that cannot be compared, with the reason in words that follow `the scores`."""

    reason: str = "cannot be read"


@dataclass(frozen=True)
class Champion:
    """A champion so far: the number of its version and its scores."""

    version: str
    scores: Evidence | Missing


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


def decide_first(challenger: Evidence | Missing) -> Decision:
    """Promote a challenger where there is no champion, if only its scores can be read."""
    if isinstance(challenger, Missing):
        return Decision(False, f"the challenger's scores {challenger.reason}")
    return Decision(True, "there was no champion")


def decide(challenger: Evidence | Missing, champions: Sequence[Champion], tolerance: float) -> Decision:
    """Promote unless the challenger may be worse than one of the champions by more than the tolerance.

    Args:
        champions: the present one, then those before it.
        tolerance: how much accuracy, as a fraction, may be lost at worst.
    """
    if isinstance(challenger, Missing):
        return Decision(False, f"the challenger's scores {challenger.reason}")
    present, *before = champions
    obstacle = _obstacle(challenger, present)
    if obstacle:
        return Decision(False, obstacle)
    left_out = [champion.version for champion in before if _obstacle(challenger, champion)]
    compared = [_compare(challenger, one, tolerance) for one in champions if one.version not in left_out]
    *_, decision = min(compared, key=lambda found: (found[0], found[1]))
    note = f"; left out, as they cannot be compared: versions {', '.join(left_out)}" if left_out else ""
    return Decision(decision.promote, decision.reason + note)


def _obstacle(challenger: Evidence, champion: Champion) -> str:
    """Say why two sets of scores cannot be compared; empty if they can."""
    scores, who = champion.scores, f"champion version {champion.version}"
    if isinstance(scores, Missing):
        return f"the scores of {who} {scores.reason}"
    if (challenger.scored_on, challenger.task) != (scores.scored_on, scores.task):
        return (
            f"the challenger was scored on {_say_task(challenger)}, {who} on {_say_task(scores)}; "
            "score both alike, or register it under another name"
        )
    if set(challenger.class_names) != set(scores.class_names):
        return f"{_say_classes(challenger, scores)} than {who}; register it under another name"
    n_shared = len(_shared(challenger, scores))
    if n_shared < FEWEST_IMAGES:
        count = "no image" if n_shared == 0 else f"{n_shared} of the {FEWEST_IMAGES} images that are needed"
        return f"challenger and {who} share {count}; score both on the same images, or register it under another name"
    return ""


def _say_task(evidence: Evidence) -> str:
    return f"{evidence.task} {evidence.scored_on}".strip()


def _say_classes(challenger: Evidence, champion: Evidence) -> str:
    new, gone = (
        sorted(set(one.class_names) - set(other.class_names))
        for one, other in ((challenger, champion), (champion, challenger))
    )
    parts = [f"{word} {', '.join(names)}" for word, names in (("with", new), ("without", gone)) if names]
    return f"the challenger has other classes ({' and '.join(parts)})"


def _shared(challenger: Evidence, champion: Evidence) -> list[str]:
    return sorted(challenger.accuracies.keys() & champion.accuracies.keys())


def _compare(challenger: Evidence, champion: Champion, tolerance: float) -> tuple[bool, float, Decision]:
    """Test one champion: passed, the bound of the difference challenger - champion, and the decision by it."""
    scores = champion.scores
    assert isinstance(scores, Evidence)
    shared = _shared(challenger, scores)
    differences = np.array([challenger.accuracies[image] - scores.accuracies[image] for image in shared])
    if not np.isfinite(differences).all():
        return (
            False,
            -math.inf,
            Decision(False, f"a score of the challenger or champion {champion.version} is no number"),
        )
    low = lower_bound(differences, _groups(challenger, shared))
    promote = low > -tolerance
    points = f"{100 * differences.mean():+.2f} points on {len(shared):,} shared images"
    how = "is at least" if low > 0 else "is at most" if promote else "may be up to"
    reason = (
        f"against champion version {champion.version} {points}; it {how} {100 * abs(low):.2f} points "
        f"{'better' if low > 0 else 'worse'} ({100 * tolerance:.2f} worse is allowed)"
        f"{_say_reach(len(shared), tolerance, promote)}"
    )
    return promote, low, Decision(promote, reason)


def _say_reach(n: int, tolerance: float, promote: bool) -> str:
    """Say what so few images can show at best, where even equal predictions would not pass."""
    reach = 1 - TAIL ** (1 / n)  # where all predictions are equal: the bound of 0 losses in n (Clopper and Pearson)
    if promote or reach < tolerance:
        return ""
    return (
        f"; with {n:,} images even a version that predicts exactly alike may be {100 * reach:.2f} points worse: label "
        "more images, or give register a larger tolerance"
    )


def _groups(challenger: Evidence, shared: Sequence[str]) -> NDArray[np.int64]:
    """Number the groups of near-duplicates among the shared images, as the challenger's run found them: (n,)."""
    names = [str(challenger.groups.get(image, image)) for image in shared]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
