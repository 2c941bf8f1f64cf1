"""Comparison of several runs: which is better, and is that more than luck?

    mlflow run . -e compare -P runs=<id>,<id>,<id>

Takes finetune runs that scored different backbones or recipes on the same episodes, or train runs with the same test
images, and gives every paired difference with its interval and a p-value that allows for the number of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.command_line.command import run_command_line
from pipelines.results.columns import aligned
from tl_core.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities import Run

    from tl_core.scoring.episodes import Comparison
    from tl_core.scoring.images import ImageComparison


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Paired differences of several runs on the same episodes or images."""

    runs: str
    """Two or more finetune runs, or two or more train runs, separated by commas."""


def run(config: CompareConfig) -> str:
    """Compare and log; returns the run's id."""
    import mlflow

    from pipelines.reports.log import log_report
    from pipelines.results.scores import run_ids
    from pipelines.store.find import find_run
    from pipelines.store.params import log_params
    from pipelines.store.runs import KIND, tracked_run

    with tracked_run("compare", config) as run_id:
        found = [find_run(run_id, "finetune", "train") for run_id in run_ids(config.runs)]
        ids, kinds = [run.info.run_id for run in found], {run.data.tags[KIND] for run in found}
        if len(kinds) > 1:
            raise InputError("expected finetune runs or train runs, got both; their scores are not of the same images")
        log_params({"runs": ",".join(ids)})
        lines = _compare_trainings(ids) if kinds == {"train"} else _compare_episodes(ids)
        mlflow.log_text("\n".join(lines), "comparison.txt")
        log_report(run_id)
        print("\n".join(lines))
        print(f"compare {run_id}: {len(ids)} runs, {math.comb(len(ids), 2)} pairs")
    return run_id


def _compare_episodes(ids: list[str]) -> list[str]:
    import mlflow

    from pipelines.results.figures import draw_estimates
    from pipelines.results.scores import named_runs, paired_accuracies
    from tl_core.scoring.episodes import compare_all, estimate

    runs = named_runs(ids)
    scores = paired_accuracies(runs)
    results = {name: estimate(values) for name, values in scores.items()}
    pairs = compare_all(scores)
    _log_pairs(pairs, lambda found: {"difference": found.mean, "ci95": found.ci95})
    mlflow.log_figure(draw_estimates(results), "accuracies.png")
    mlflow.log_metric("n_episodes", next(iter(results.values())).n)
    lines = aligned([(name, result.percent()) for name, result in results.items()])
    heading = ("difference on the same episodes", "in points, 95 % interval; p after Holm")
    return [*lines, "", *_pair_lines(heading, pairs), *_setting_lines(runs)]


def _compare_trainings(ids: list[str]) -> list[str]:
    import mlflow

    from pipelines.results.figures import draw_curves, draw_intervals
    from pipelines.results.trainings import curve_of, load_trainings, table_of
    from tl_core.scoring.images import compare_on_images, wilson

    trainings = load_trainings(ids)
    results = {training.name: wilson(training.hits) for training in trainings}
    pairs = compare_on_images({training.name: training.hits for training in trainings})
    _log_pairs(pairs, lambda found: {"difference": found.value, "low": found.low, "high": found.high})
    mlflow.log_figure(draw_intervals(results), "accuracies.png")
    mlflow.log_figure(draw_curves([curve_of(training) for training in trainings]), "curves.png")
    mlflow.log_metric("n_images", len(trainings[0].hits))
    heading = ("difference on the same images", "in points, 95 % interval; p of McNemar's test after Holm")
    settings = _setting_lines({training.name: training.run for training in trainings})
    return [*table_of(trainings, results), "", *_pair_lines(heading, pairs), *settings]


def _pair_lines(heading: tuple[str, str], pairs: Sequence[Comparison] | Sequence[ImageComparison]) -> list[str]:
    return aligned([heading, *((f"{pair.first} - {pair.second}", pair.points()) for pair in pairs)])


def _setting_lines(runs: Mapping[str, Run]) -> list[str]:
    """Format the settings that differ between the runs as lines of a table; none where nothing differs."""
    from pipelines.results.comparable import settings_that_differ

    heading, *rows = settings_that_differ(runs)
    return ["", *aligned([heading, *rows])] if rows else []


def _log_pairs(
    pairs: Sequence[Comparison] | Sequence[ImageComparison], columns: Callable[[Any], dict[str, float]]
) -> None:
    """Log the table of all pairs; `columns` are those that a difference takes."""
    import mlflow
    import pandas as pd

    table = pd.DataFrame(
        [
            {"first": pair.first, "second": pair.second, **columns(pair.difference), "p": pair.p, "p_holm": pair.p_holm}
            for pair in pairs
        ]
    )
    mlflow.log_text(table.to_csv(index=False), "differences.csv")


if __name__ == "__main__":
    run_command_line(CompareConfig, run)
