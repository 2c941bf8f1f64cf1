"""Several runs beside each other: whether they can be compared, and in which settings they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlflow.entities import Run

from pipelines.store.find import find_run
from pipelines.store.params import used_params
from tl_core.errors import InputError

_NAMES = ("name",)  # params that say what a run is called, not what it did


def find_comparable_runs(run_ids: Sequence[str], kind: str, tag: str, scored_on: str, advice: str) -> list[Run]:
    """Two or more different finished runs of one kind that have a tag in common.

    Args:
        scored_on: what the tag stands for, and `advice` how to make it the same, in words.

    Raises:
        InputError: fewer than two runs, the same run twice, one that cannot be used, or another tag.
    """
    if len(set(run_ids)) < 2 or len(set(run_ids)) < len(run_ids):
        raise InputError(f"a comparison needs two or more different {kind} runs; given are {len(run_ids)}")
    runs = [find_run(run_id, kind) for run_id in run_ids]
    for run in runs[1:]:
        if run.data.tags[tag] != runs[0].data.tags[tag]:
            both = f"{runs[0].info.run_id} and {run.info.run_id}"
            raise InputError(f"{kind} runs {both} were scored on different {scored_on}; {advice}")
    return runs


def settings_that_differ(runs: Mapping[str, Run]) -> list[list[str]]:
    """A heading, then one row per param that is not the same in all runs, by the runs' readable names."""
    params = [used_params(run) for run in runs.values()]
    known = sorted({name for of_run in params for name in of_run} - set(_NAMES))
    values = {name: [of_run.get(name, "") for of_run in params] for name in known}
    return [["setting", *runs], *([name, *of_runs] for name, of_runs in values.items() if len(set(of_runs)) > 1)]
