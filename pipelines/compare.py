"""Comparison of several runs: which is better, and is that more than luck?

    mlflow run . -e compare -P runs=<id>,<id>,<id>

Takes finetune runs that scored different backbones or recipes on the same episodes, train runs with the same test
images, or classify runs that share images. Gives every paired difference with its interval over images and a p-value
that allows for the number of pairs. The interval over episodes stands beside it: more episodes of the same
images narrow only that one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from pipelines.results.columns import aligned
from tl_core.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities import Run

    from tl_core.scoring.episodes import Estimate
    from tl_core.scoring.paired import PairComparison


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Paired differences of several runs on the same episodes or images."""

    runs: str
    """Two or more finetune runs, or as many train or classify runs, separated by commas."""


def run(config: CompareConfig) -> str:
    """Compare and log; returns the run's id."""
    import mlflow

    from pipelines.reports.log import log_report
    from pipelines.results.scores import run_ids
    from pipelines.store.find import find_run
    from pipelines.store.params import log_params
    from pipelines.store.runs import KIND, tracked_run

    with tracked_run("compare", config, f"compare {len(run_ids(config.runs))} runs") as run_id:
        found = [find_run(run_id, *COMPARED) for run_id in run_ids(config.runs)]
        ids, kinds = [run.info.run_id for run in found], {run.data.tags[KIND] for run in found}
        if len(kinds) > 1:
            raise InputError(
                f"expected runs of one kind, got {' and '.join(sorted(kinds))}; they are scored differently"
            )
        log_params({"runs": ",".join(ids)})
        lines = _COMPARE[kinds.pop() if kinds else "finetune"](ids)
        mlflow.log_text("\n".join(lines), "comparison.txt")
        log_report(run_id)
        print("\n".join(lines))
        print(f"compare {run_id}: {len(ids)} runs, {math.comb(len(ids), 2)} pairs")
    return run_id


def _compare_episodes(ids: list[str]) -> list[str]:
    import mlflow

    from pipelines.reports.kinds.compare import differences_over_episodes
    from pipelines.results.figures import draw_estimates
    from pipelines.results.scores import compare_over_images, image_accuracies, named_runs, paired_accuracies
    from pipelines.store.logging import log_drawing
    from tl_core.scoring.episodes import estimate

    runs = named_runs(ids)
    scores = paired_accuracies(runs)
    results = {name: estimate(values) for name, values in scores.items()}
    pairs = compare_over_images({name: image_accuracies(run.info.run_id) for name, run in runs.items()})
    over_episodes = differences_over_episodes(scores, pairs)
    _log_pairs(pairs, [{"episodes_difference": found.mean, "episodes_ci95": found.ci95} for found in over_episodes])
    log_drawing(lambda: draw_estimates(results), "accuracies.png")
    mlflow.log_metric("n_episodes", next(iter(results.values())).n)
    mlflow.log_metric("n_images", pairs[0].difference.n)
    lines = aligned([(name, result.percent()) for name, result in results.items()])
    return [*lines, "", *_pair_lines(pairs, over_episodes), *_setting_lines(runs)]


def _compare_trainings(ids: list[str]) -> list[str]:
    import mlflow

    from pipelines.results.figures import draw_curves, draw_intervals
    from pipelines.results.scores import compare_over_images, image_accuracies
    from pipelines.results.trainings import curve_of, load_trainings, table_of
    from pipelines.store.logging import log_drawing
    from tl_core.scoring.images import wilson

    trainings = load_trainings(ids)
    results = {training.name: wilson(training.hits) for training in trainings}
    pairs = compare_over_images({one.name: image_accuracies(one.run.info.run_id) for one in trainings})
    _log_pairs(pairs, [{} for _ in pairs])
    log_drawing(lambda: draw_intervals(results), "accuracies.png")
    log_drawing(lambda: draw_curves([curve_of(training) for training in trainings]), "curves.png")
    mlflow.log_metric("n_images", len(trainings[0].hits))
    settings = _setting_lines({training.name: training.run for training in trainings})
    return [*table_of(trainings, results), "", *_pair_lines(pairs, []), *settings]


def _compare_estimates(ids: list[str]) -> list[str]:
    import mlflow

    from pipelines.reports.words import say_interval
    from pipelines.results.estimates import compare_estimates, load_estimates
    from pipelines.results.figures import draw_intervals
    from pipelines.store.logging import log_drawing

    estimated = load_estimates(ids)
    pairs = compare_estimates(estimated)
    results = {one.name: one.estimate.headline for one in estimated}
    _log_pairs(pairs, [{} for _ in pairs])
    log_drawing(lambda: draw_intervals(results, title="Each on new images like its own"), "accuracies.png")
    mlflow.log_metric("n_images", min(pair.difference.n for pair in pairs))
    heading = ("file", "accuracy on new images like its own, 95 % interval")
    lines = aligned([heading, *((name, say_interval(result)) for name, result in results.items())])
    settings = _setting_lines({one.name: one.run for one in estimated})
    return [*lines, "", *_pair_lines(pairs, []), *settings]


_COMPARE = {"finetune": _compare_episodes, "train": _compare_trainings, "classify": _compare_estimates}
COMPARED = tuple(_COMPARE)
"""Kinds of runs that are compared, each with its own."""


def _pair_lines(pairs: Sequence[PairComparison], over_episodes: Sequence[Estimate]) -> list[str]:
    from pipelines.reports.kinds.compare import pair_rows

    heading = ("difference on the same images", "in points, 95 % interval over images; p after Holm")
    return aligned([heading, *pair_rows(pairs, over_episodes)])


def _setting_lines(runs: Mapping[str, Run]) -> list[str]:
    """Format the settings that differ between the runs as lines of a table; none where nothing differs."""
    from pipelines.results.comparable import settings_that_differ

    heading, *rows = settings_that_differ(runs)
    return ["", *aligned([heading, *rows])] if rows else []


def _log_pairs(pairs: Sequence[PairComparison], further: Sequence[Mapping[str, float]]) -> None:
    """Log the table of all pairs with further columns of each."""
    import mlflow
    import pandas as pd

    rows = []
    for pair, columns in zip(pairs, further, strict=True):
        found = pair.difference
        interval = {"difference": found.value, "low": found.low, "high": found.high, "n_images": found.n}
        rows.append(
            {"first": pair.first, "second": pair.second, **interval, "p": found.p, "p_holm": pair.p_holm, **columns}
        )
    mlflow.log_text(pd.DataFrame(rows).to_csv(index=False), "differences.csv")


if __name__ == "__main__":
    run_command_line(CompareConfig, run)
