"""Reproduction of a known system on one or several data sets.

    mlflow run . -e reproduce -P name=cinic_vgg16 -P data=CINIC-10 -P weights=timm

A reproduction is a small file in reproductions/ (or a path of one's own): an entry point, its arguments, its variants
and the published result. Every variant is run on every data set; what they reach is one table, and on each set they are
compared on the same episodes or test images. A variant that fails leaves the table to the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.command_line.command import run_command_line
from pipelines.store.redaction import redact
from tl_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """A known system's variants, run and compared."""

    name: str
    """Name of a file in reproductions/, without .toml, or the path of one."""
    data: str
    """Data specs, separated by commas; each is a column of the table."""
    weights: str = "random"
    """What the variants start from: one for all, or one for each variant, separated by commas."""
    overrides: str = ""
    """Arguments that replace the reproduction's in every variant, separated by spaces: epochs=1 image_size=32."""

    @staticmethod
    def more_help() -> str:
        """The known systems, for `--help`."""
        from pipelines.command_line.reproduction_files import list_reproductions

        return list_reproductions()


def run(config: ReproduceConfig) -> str:
    """Run every variant on every data set, compare and log; returns the run's id."""
    import mlflow

    from pipelines.command_line.reproduction_files import load_reproduction, plan_runs, runner_of
    from pipelines.reports.reproduction_table import describe_results, predictions_table
    from pipelines.store.runs import tracked_run
    from tl_core.data.dataset import default_cache_dir
    from tl_core.data.specs import list_images

    reproduction = load_reproduction(config.name)
    plan = plan_runs(reproduction, config.data, config.weights, config.overrides)
    for data in plan:
        list_images(data, default_cache_dir() / "data")  # a wrong path is no fault of each variant
    n_runs = sum(map(len, plan.values()))
    with tracked_run("reproduce", config, f"reproduce {reproduction.name}") as run_id:
        found, failed = _run_all(plan, runner_of(reproduction.entry_point))
        n_done = n_runs - len(failed)
        if n_done == 0:
            raise InputError(failed[0])
        lines = [*describe_results(found, list(next(iter(plan.values())))), ""]
        lines += [f"published: {reproduction.published}"] if reproduction.published else []
        lines += [f"measured:  {reproduction.measured}"] if reproduction.measured else []
        lines += [f"failed:    {sentence}" for sentence in failed]
        mlflow.log_text("\n".join(lines), "results.txt")
        if reproduction.entry_point == "train":
            mlflow.log_text(predictions_table(found).to_csv(index=False), "predictions.csv")
        print("\n".join(["", *lines]))
        print(f"reproduce {run_id}: {reproduction.name}, {n_done} runs")
        failed += _compare_all(found)
        if failed:
            raise InputError(f"{len(failed)} failed, reproduce run {run_id} has the table of the others; {failed[0]}")
    return run_id


def _run_all(
    plan: Mapping[str, Mapping[str, Any]], start: Callable[[Any], str]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Run ids by data spec and variant, and a sentence for each that failed: hours of the others are not given up."""
    found: dict[str, dict[str, str]] = {data: {} for data in plan}
    failed = []
    for data, variants in plan.items():
        for name, config in variants.items():
            try:
                found[data][name] = start(config)
            except InputError as error:
                failed.append(redact(f"{name!r} on {data}: {error}"))
                if any(found.values()):  # else it may be the fault of all, which is said once, at the end
                    print(f"failed: {failed[-1]}", file=sys.stderr)
    return found, failed


def _compare_all(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Compare the variants on each set; returns a sentence for each set on which they cannot be."""
    from pipelines import compare

    failed = []
    for data, run_ids in found.items():
        if len(run_ids) > 1:
            try:
                compare.run(compare.CompareConfig(runs=",".join(run_ids.values())))
            except InputError as error:
                failed.append(f"the comparison on {data}: {error}")
    return failed


if __name__ == "__main__":
    run_command_line(ReproduceConfig, run)
