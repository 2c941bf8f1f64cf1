"""Several runs beside each other: whether they can be compared, and in which settings they differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlflow.entities import Run

from pipelines.store.find import find_run
from pipelines.store.params import used_params
from tl_core.errors import InputError

_NAMES = ("name",)  # params that say what a run is called, not what it did
_RUNS = ("search_run",)  # params that are ids: what the run brought is among the others
_ID = re.compile(r"\b[0-9a-f]{32}\b")
_MOST_NAMED = 3  # settings in a name; all of them are in a table


def find_comparable_runs(run_ids: Sequence[str], kind: str, tag: str, scored_on: str, advice: str) -> list[Run]:
    """Two or more different finished runs of one kind that have a tag in common.

    Args:
        scored_on: what the tag stands for, and `advice` how to make it the same, in words.

    Raises:
        InputError: fewer than two runs, the same run twice, one that cannot be used, or another tag.
    """
    runs = find_different_runs(run_ids, kind)
    for run in runs[1:]:
        if run.data.tags[tag] != runs[0].data.tags[tag]:
            both = f"{runs[0].info.run_id} and {run.info.run_id}"
            raise InputError(f"{kind} runs {both} were scored on different {scored_on}; {advice}")
    return runs


def find_different_runs(run_ids: Sequence[str], kind: str) -> list[Run]:
    """Two or more different finished runs of one kind.

    Raises:
        InputError: fewer than two runs, the same run twice, or one that cannot be used.
    """
    if len(set(run_ids)) < 2 or len(set(run_ids)) < len(run_ids):
        raise InputError(f"a comparison needs two or more different {kind} runs; given are {len(run_ids)}")
    return [find_run(run_id, kind) for run_id in run_ids]


def tell_apart(names: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Names of several runs, each different: those given, and where they are equal the settings that differ.

    Runs of the same settings are told apart by the first digits of their ids.
    """
    alike: dict[str, dict[str, Run]] = {}
    for name, run in zip(names, runs, strict=True):
        alike.setdefault(name, {})[run.info.run_id] = run
    settings = {run_id: words for of_name in alike.values() for run_id, words in _name_settings(of_name).items()}
    found = []
    for name, run in zip(names, runs, strict=True):
        words = settings[run.info.run_id]
        found.append(", ".join([name, *words] if len(alike) > 1 or not words else words))
    return [
        f"{name} ({run.info.run_id[:8]})" if found.count(name) > 1 else name
        for name, run in zip(found, runs, strict=True)
    ]


def _name_settings(runs: Mapping[str, Run]) -> dict[str, list[str]]:
    """Return by run id its values of the first settings that differ among these runs."""
    _, *rows = settings_that_differ(runs)
    telling = [row for row in rows if row[0] not in _RUNS][:_MOST_NAMED]
    return {
        run_id: [f"{name} {_ID.sub(_first_digits, values[at])}" for name, *values in telling]
        for at, run_id in enumerate(runs)
    }


def _first_digits(run_id: re.Match[str]) -> str:
    return run_id[0][:8]


def settings_that_differ(runs: Mapping[str, Run]) -> list[list[str]]:
    """A heading, then one row per param that is not the same in all runs, by the runs' readable names."""
    params = [used_params(run) for run in runs.values()]
    known = sorted({name for of_run in params for name in of_run} - set(_NAMES))
    values = {name: [of_run.get(name, "") for of_run in params] for name in known}
    return [["setting", *runs], *([name, *of_runs] for name, of_runs in values.items() if len(set(of_runs)) > 1)]
