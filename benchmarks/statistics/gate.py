"""How often does the gate promote a challenger that is worse, equal, or better than the champion?

    python -m benchmarks.statistics.gate

Both classify the same test images; they disagree on a given share of them, and on the rest both are right or both are
wrong. `before` is the percentile bootstrap of the paired differences against the present champion alone; of renewed
images, Welch's interval of two sets of episodes, whose upper end decided.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from registry.gate import Champion, Evidence, decide
from tl_core.scoring.episodes import independent_difference
from tl_core.scoring.images import bootstrap

CLASSES = ("a", "b")
SIZES = (10, 20, 30, 50, 100, 300, 1000)
CASES = (
    (-0.08, 0.08),
    (-0.05, 0.05),
    (-0.05, 0.2),
    (-0.01, 0.01),
    (-0.01, 0.1),
    (0.0, 0.0),
    (0.0, 0.04),
    (0.0, 0.1),
    (0.05, 0.1),
)
"""True differences, and the shares of images on which the two disagree."""

Floats = NDArray[np.float64]


def evidence(hits: Floats, prefix: str = "") -> Evidence:
    """Scores on test images that are called by their position."""
    return Evidence({f"{prefix}{at}": float(hit) for at, hit in enumerate(hits)}, CLASSES, "test images")


def draw(n: int, difference: float, disagree: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Predictions of a challenger and a champion on n images: 1 where right, float64 (n,) each."""
    won, lost = (disagree + difference) / 2, (disagree - difference) / 2
    kinds = rng.choice(3, n, p=[won, lost, 1 - won - lost])
    both = (rng.random(n) < 0.9).astype(float)
    challenger, champion = (np.select([kinds == own, kinds == 1 - own], [1.0, 0.0], both) for own in (0, 1))
    return challenger, champion


def promotes_before(challenger: Floats, champion: Floats, tolerance: float) -> bool:
    """Decide as the gate did before."""
    return bootstrap(challenger - champion).low > -tolerance


def promotes(challenger: Evidence, champions: list[Evidence], tolerance: float) -> bool:
    """Decide as the gate does."""
    return decide(challenger, [Champion(str(at), one) for at, one in enumerate(champions)], tolerance).promote


def on_shared_images(args: argparse.Namespace) -> None:
    """Print the share of promotions by number of shared images."""
    print(f"| difference | disagree on | gate | {' | '.join(f'{n} images' for n in SIZES)} |")
    print("|---|---|---|" + "---|" * len(SIZES))
    for difference, disagree in CASES:
        shares: dict[str, list[str]] = {"before": [], "now": []}
        for n in SIZES:
            rng = np.random.default_rng(n)
            pairs = [draw(n, difference, disagree, rng) for _ in range(args.draws)]
            before = np.mean([promotes_before(*pair, args.tolerance) for pair in pairs])
            now = np.mean([promotes(evidence(one), [evidence(other)], args.tolerance) for one, other in pairs])
            shares["before"].append(f"{100 * before:.1f}")
            shares["now"].append(f"{100 * now:.1f}")
        for gate, row in shares.items():
            print(f"| {100 * difference:+.0f} | {100 * disagree:.0f} % | {gate} | {' | '.join(row)} |", flush=True)


def on_renewed_images(args: argparse.Namespace) -> None:
    """Print the share of promotions where the champion was scored on other images, 10 episodes of 35 queries each."""
    rng = np.random.default_rng(0)
    for difference in (-0.08, -0.05, 0.0, 0.05):
        before = now = 0
        for _ in range(args.draws):
            challenger, champion = (
                rng.binomial(35, np.clip(rng.normal(mean, 0.08, 10), 0, 1)) / 35 for mean in (0.8 + difference, 0.8)
            )
            before += independent_difference(challenger, champion).high >= -args.tolerance
            now += promotes(evidence(challenger, "new"), [evidence(champion)], args.tolerance)
        shares = f"{100 * before / args.draws:.1f} | {100 * now / args.draws:.1f}"
        print(f"| {100 * difference:+.0f}, renewed images | before and now: | {shares} |", flush=True)


def in_steps(args: argparse.Namespace, steps: int = 10, step: float = 0.006) -> None:
    """Print how far the champion falls where each challenger loses 0.6 % of the images that the one before it had."""
    for n in (2000, 10_000):
        challengers = [(np.arange(n) >= round(number * step * n)).astype(float) for number in range(steps + 1)]
        for gate in ("before", "now"):
            chain = challengers[:1]
            for challenger in challengers[1:]:
                if gate == "before":
                    passed = promotes_before(challenger, chain[-1], args.tolerance)
                else:
                    passed = promotes(evidence(challenger), [evidence(one) for one in chain[::-1]], args.tolerance)
                chain += [challenger] if passed else []
            fall = 100 * (1 - chain[-1].mean())
            row = f"{steps} steps of -{100 * step:.1f}, {n:,} images | {gate} | {len(chain) - 1} promoted"
            print(f"| {row} | -{fall:.1f} points |", flush=True)


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--tolerance", type=float, default=0.01)
    args = parser.parse_args()
    on_shared_images(args)
    on_renewed_images(args)
    in_steps(args)


if __name__ == "__main__":
    main()
