"""Table of a reproduction's results: rows are variants, columns are data sets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
import pandas as pd

from pipelines.results.trainings import predictions_of

Runs = Mapping[str, Mapping[str, str]]
"""Run ids by data spec, then by variant."""


def describe_results(runs: Runs, variants: Sequence[str]) -> list[str]:
    """Lines of the table; a cell has the accuracy after each stage, with its 95 % interval, in %, or says `failed`."""
    titles = _titles(runs)
    table = pd.DataFrame({titles[data]: _column(run_ids, variants) for data, run_ids in runs.items()})
    ran = [name for name in variants if any(name in run_ids for run_ids in runs.values())]
    firsts = {name: next(run_ids[name] for run_ids in runs.values() if name in run_ids) for name in ran}
    started = [f"{name}: {_weights(run_id)} (run {run_id[:8]})" for name, run_id in firsts.items()]
    everywhere = [name for name in ran if all(name in run_ids for run_ids in runs.values())]
    means = []
    if len(runs) > 1 and everywhere:
        means = ["", "mean over the sets, stage by stage", *_means(runs, everywhere)]
    return [*table.to_string().split("\n"), *means, "", "started from", *started]


def predictions_table(runs: Runs) -> pd.DataFrame:
    """One row per test image, data set and variant of a reproduction of train runs."""
    titles = _titles(runs)
    tables = [
        predictions_of(run_id).assign(data=titles[data], variant=variant)
        for data, variants in runs.items()
        for variant, run_id in variants.items()
    ]
    return pd.concat(tables)[["data", "variant", "file", "label", "prediction", "probability"]]


def _titles(runs: Runs) -> dict[str, str]:
    """Return a title for each data spec: its file's name, or all of it where two files have the same name."""
    stems = {data: Path(data).stem or data for data in runs}
    return stems if len(set(stems.values())) == len(stems) else {data: data for data in runs}


def _column(run_ids: Mapping[str, str], variants: Sequence[str]) -> dict[str, str]:
    """Return the accuracy of each variant on one set."""
    return {
        name: " -> ".join(_cell(*scores) for scores in _stages(run_ids[name])) if name in run_ids else "failed"
        for name in variants
    }


def _cell(accuracy: float, low: float, high: float) -> str:
    return f"{100 * accuracy:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _stages(run_id: str) -> list[tuple[float, float, float]]:
    """Accuracy with the ends of its interval after every stage; a finetune run has one."""
    metrics = mlflow.MlflowClient().get_run(run_id).data.metrics
    numbered = (f"stage_{number}/test_accuracy" for number in itertools.count(1))
    names = list(itertools.takewhile(metrics.__contains__, numbered))
    if names:
        return [(metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"]) for name in names]
    mean, half_width = metrics["accuracy"], metrics.get("accuracy_ci95", float("inf"))
    return [(mean, mean - half_width, mean + half_width)]


def _means(runs: Runs, variants: Sequence[str]) -> list[str]:
    lines = []
    for variant in variants:
        of_sets = [[accuracy for accuracy, _, _ in _stages(run_ids[variant])] for run_ids in runs.values()]
        means = [sum(values) / len(values) for values in zip(*of_sets, strict=True)]
        lines.append(f"{variant}: {' -> '.join(f'{100 * mean:.2f}' for mean in means)}")
    return lines


def _weights(run_id: str) -> str:
    return mlflow.MlflowClient().get_run(run_id).data.tags["network"]
