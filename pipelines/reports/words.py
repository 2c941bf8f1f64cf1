"""Numbers as people say them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tl_core.scoring.episodes import Estimate
from tl_core.scoring.images import Interval
from tl_core.scoring.paired import PairedDifference

if TYPE_CHECKING:
    from tl_core.search.verdict import Verdict

_FINE = 0.001
"""Half-widths below a tenth of a point need a second digit."""


def say_estimate(found: Estimate) -> str:
    """`81.2 % ± 0.6 over 600 episodes`."""
    episodes = f"over {found.n:,} episodes" if found.n > 1 else "in one episode"
    if not math.isfinite(found.ci95):
        return f"{100 * found.mean:.1f} % {episodes}, too few for an interval"
    digits = _digits(found.ci95)
    return f"{100 * found.mean:.{digits}f} % ± {100 * found.ci95:.{digits}f} {episodes}"


def say_interval(found: Interval) -> str:
    """`91.3 % (89.7 to 92.6)`."""
    digits = _digits((found.high - found.low) / 2)
    return f"{100 * found.value:.{digits}f} % ({100 * found.low:.{digits}f} to {100 * found.high:.{digits}f})"


def join_words(words: Sequence[str], most: int = 12) -> str:
    """`ants, bees and wasps`; of more than so many the first, `and 7 others`."""
    *first, last = words if len(words) <= most else [*words[: most - 1], f"{len(words) - most + 1:,} others"]
    return f"{', '.join(first)} and {last}" if first else last


def say_count(n: int, word: str) -> str:
    """`1 image`, `1,200 images`."""
    return f"{n:,} {word if n == 1 else f'{word}s'}"


def say_significance(significant: bool) -> str:
    """`significantly different`, or not."""
    return "significantly different" if significant else "not significantly different"


def say_difference(found: PairedDifference, significant: bool, beside: str) -> str:
    """A difference in points: `+1.25 (-0.81 to +3.31) over 120 images, ± 0.44 over 200 episodes: not significantly...`.

    Args:
        significant: by the interval over images, or by its p-value after the correction for the number of pairs.
        beside: what else is known of it, in words.
    """
    interval = f"{100 * found.value:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f}) over {found.n:,} images"
    return f"{interval}, {beside}: {say_significance(significant)}"


def say_points(found: PairedDifference) -> str:
    """A difference in points with its verdict: `-1.3 (-4.2 to +1.6), not significantly different`."""
    interval = f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"{interval}, {say_significance(found.is_significant)}"


def say_over_episodes(found: Estimate) -> str:
    """The half-width of a difference over episodes: `± 0.44 over 200 episodes`."""
    if not math.isfinite(found.ci95):
        return "in one episode"
    return f"± {100 * found.ci95:.2f} over {found.n:,} episodes"


def say_gain(found: PairedDifference, other: str) -> str:
    """Say what a paired difference over images means: `better than this by 1.9 points (0.4 to 3.4 over 120 images)`."""
    digits = _digits((found.high - found.low) / 2)
    if not found.is_significant:
        low, high = f"{100 * found.low:+.{digits}f}", f"{100 * found.high:+.{digits}f}"
        points = f"{100 * found.value:+.{digits}f} points, {low} to {high}"
        return f"not significantly different from {other} ({points} over {found.n:,} images)"
    ends = sorted((100 * abs(found.low), 100 * abs(found.high)))
    by = f"{100 * abs(found.value):.{digits}f} points ({ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
    return f"{'better' if found.value > 0 else 'worse'} than {other} by {by} over {found.n:,} images)"


def say_winner(verdict: Verdict) -> str:
    """Say who wins a search."""
    if verdict.best is verdict.base:
        return "nothing was better than the default recipe"
    gained = say_gain(verdict.gain_on_images, "the default recipe")
    return gained if verdict.winner is verdict.best else f"the best of the others is {gained}, so that one stays"


def say_seconds(seconds: float) -> str:
    """`4 ms`, `1.4 s`, `48 s`, `12 min`, `2 h 05 min`."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def sentence(*parts: str) -> str:
    """The parts that say something, joined by semicolons."""
    return "; ".join(part for part in parts if part)


def _digits(half_width: float) -> int:
    return 2 if 0 < half_width < _FINE else 1
