"""The result of a scored run in one sentence, as a report, a model card and the description of a model say it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mlflow.entities import Run

from pipelines.results.delivered import DeliveredEstimate, read_estimate
from pipelines.store.params import used_params
from pipelines.store.runs import KIND
from tl_core.errors import InputError
from tl_core.scoring.images import Interval


def say_of_100(what: str, found: Interval) -> str:
    """Say how many images are named rightly: of 100 new ones, about 90, from 71 to 97 by the interval."""
    low, high = math.floor(100 * found.low), math.ceil(100 * found.high)
    return f"Of 100 {what}, about {100 * found.value:.0f} are named rightly: {low} to {high}."


def say_delivered(estimate: DeliveredEstimate) -> str:
    """Say in a sentence how many of 100 new images a classify run's file names rightly, and how many guessing does."""
    counts = estimate.counts
    like = "new images like these"
    if max(counts) > min(counts):
        like = (
            "new images, as many of each class" if estimate.priors == "balanced" else f"{like}, as often of each class"
        )
    guess = 100 / len(counts) if estimate.priors == "balanced" else 100 * max(counts) / sum(counts)
    return f"{say_of_100(like, estimate.headline)} By guessing it would be {guess:.0f}."


def headline_of(scored: Run) -> str:
    """Say how good the classifier of a finetune, train or classify run is; empty where the run's records do not."""
    kind = scored.data.tags[KIND]
    try:
        if kind == "classify":
            return say_delivered(read_estimate(scored.info.run_id))
        return _say_episodes(scored) if kind == "finetune" else _say_test_images(scored)
    except (InputError, KeyError, OSError, ValueError):  # damaged records, or those of an earlier version
        return ""


def _say_episodes(scored: Run) -> str:
    shape = json.loads(scored.data.tags["episodes"])
    what = (
        f"images of {Path(used_params(scored)['target']).name} in {shape['n_way']}-way {shape['n_shot']}-shot episodes"
    )
    return f"{say_of_100(what, _accuracy_of(scored))} By guessing it would be {100 / shape['n_way']:.0f}."


def _say_test_images(scored: Run) -> str:
    data = Path(used_params(scored)["data"]).name
    return say_of_100(
        f"images like the {scored.data.metrics['n_test']:,.0f} test images of {data}", _accuracy_of(scored)
    )


def _accuracy_of(scored: Run) -> Interval:
    metrics = scored.data.metrics
    return Interval(metrics["accuracy"], metrics["accuracy_low"], metrics["accuracy_high"], 0)
