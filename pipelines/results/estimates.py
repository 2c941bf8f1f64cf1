"""Classify runs read back to be compared: their estimates, and the images that they share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mlflow.entities import Run

from pipelines.inputs.names import short_data
from pipelines.results.comparable import find_different_runs, tell_apart
from pipelines.results.delivered import DeliveredEstimate, read_estimate
from pipelines.results.scores import compare_over_images, image_accuracies
from pipelines.store.params import used_params
from registry.gate import FEWEST_IMAGES
from tl_core.errors import InputError
from tl_core.scoring.paired import PairComparison


@dataclass(frozen=True)
class EstimatedRun:
    """A finished classify run."""

    name: str
    run: Run
    estimate: DeliveredEstimate


def load_estimates(run_ids: Sequence[str]) -> list[EstimatedRun]:
    """Read several classify runs of the same classes.

    Raises:
        InputError: fewer than two runs, the same run twice, or runs of other classes.
    """
    runs = find_different_runs(run_ids, "classify")
    names = tell_apart([short_data(used_params(run)["data"]) for run in runs], runs)
    found = [EstimatedRun(name, run, read_estimate(run.info.run_id)) for name, run in zip(names, runs, strict=True)]
    for one in found[1:]:
        other = set(one.estimate.class_names) ^ set(found[0].estimate.class_names)
        if other:
            both = f"{found[0].run.info.run_id} and {one.run.info.run_id}"
            raise InputError(
                f"expected the same classes in classify runs {both}, got {', '.join(sorted(other)[:3])} in one of them"
            )
    return found


def compare_estimates(estimated: Sequence[EstimatedRun]) -> list[PairComparison]:
    """Compare every pair on the images that both have.

    Raises:
        InputError: two of them share too few images.
    """
    tables = {one.name: image_accuracies(one.run.info.run_id) for one in estimated}
    for first, second in itertools.combinations(tables, 2):
        n_shared = len(tables[first].index.intersection(tables[second].index))
        if n_shared < FEWEST_IMAGES:
            raise InputError(
                f"expected {FEWEST_IMAGES} or more images that {first} and {second} share, got {n_shared}; score both "
                "files on the same new images instead: transfer-lab score"
            )
    return compare_over_images(tables)
