"""Two-sample test of features: do new images look like those that a classifier was made from?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tl_core.scoring.unlike import directions

N_PERMUTATIONS = 999

Features = NDArray[np.float32] | NDArray[np.float64]
Labels = NDArray[np.int64]


def compare_features(old: Features, old_labels: Labels, new: Features, new_labels: Labels, seed: int = 0) -> float:
    """Test whether old and new images of the same classes have the same features.

    The statistic is the energy distance (Szekely and Rizzo, 2004) of the features' directions, added up over classes.
    Old and new are exchanged within each class, so that other shares of the classes are no difference.

    Args:
        old: (n, d); old_labels: int64 (n,).
        new: (m, d); new_labels: int64 (m,).
        seed: of the permutations.

    Returns:
        p-value of the permutation test, at least 1 / (`N_PERMUTATIONS` + 1); NaN if no class is in both, twice at
        least in one of them.
    """
    rng = np.random.default_rng(seed)
    statistics = np.zeros(N_PERMUTATIONS + 1)
    comparable = 0
    for label in np.intersect1d(old_labels, new_labels):
        of_class = old[old_labels == label], new[new_labels == label]
        if max(map(len, of_class)) < 2:
            continue
        comparable += 1
        statistics += _energies(*of_class, rng)
    if not comparable:
        return float("nan")
    # Sums in another order differ in their last digits, and the same split must count as equal.
    as_large = statistics[1:] >= statistics[0] - 1e-9 * abs(statistics[0])
    return float((1 + as_large.sum()) / (1 + N_PERMUTATIONS))


def _energies(old: Features, new: Features, rng: np.random.Generator) -> NDArray[np.float64]:
    """Energy distances of a class, times n m / (n + m): as it is, and after each permutation."""
    points = directions(np.concatenate([old, new]))
    distances = np.sqrt(np.maximum(2 - 2 * points @ points.T, 0))
    n, m = len(old), len(new)
    is_new = np.repeat([0.0, 1.0], [n, m])
    drawn = rng.permuted(np.tile(is_new, (N_PERMUTATIONS, 1)), axis=1)
    sides = np.vstack([is_new, drawn])
    to_new, total = sides @ distances, distances.sum(1)
    within_new = (to_new * sides).sum(1)
    between = (to_new * (1 - sides)).sum(1)
    within_old = total.sum() - within_new - 2 * between
    energy: NDArray[np.float64] = (2 * between / (n * m) - within_old / n**2 - within_new / m**2) * n * m / (n + m)
    return energy
