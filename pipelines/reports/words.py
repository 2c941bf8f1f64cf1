"""Numbers as people say them."""

from __future__ import annotations

import math

from tl_core.scoring.episodes import Estimate
from tl_core.scoring.images import Interval

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


def say_points(found: Estimate) -> str:
    """A difference: `+1.9 ± 0.4`."""
    digits = _digits(found.ci95)
    return f"{100 * found.mean:+.{digits}f} ± {100 * found.ci95:.{digits}f}"


def say_comparison(found: Estimate, other: str) -> str:
    """Say what a paired difference means: `better than the default recipe by 1.9 ± 0.4 points`."""
    if not math.isfinite(found.ci95) or found.low <= 0 <= found.high:
        return f"not told apart from {other} ({say_points(found)} points)"
    digits = _digits(found.ci95)
    by = f"{100 * abs(found.mean):.{digits}f} ± {100 * found.ci95:.{digits}f}"
    return f"{'better' if found.mean > 0 else 'worse'} than {other} by {by} points"


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
