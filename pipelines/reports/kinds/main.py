"""The report of the whole line: what transfer and search were worth, how good the classifier is, and where it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import mlflow
from mlflow.entities import Run

from pipelines.reports.classifier import classifier_section, steps_of
from pipelines.reports.kinds.compare import difference_table, methods_section
from pipelines.reports.origin import cost_section, origin_section, seconds_of, title_of
from pipelines.reports.page import Page, Section, Table
from pipelines.reports.predictions import answers_sections, features_section
from pipelines.reports.sections import (
    distribution_section,
    other_images,
    pretraining_section,
    search_section,
    shots_section,
    task_of,
)
from pipelines.reports.words import (
    say_difference,
    say_estimate,
    say_gain,
    say_over_episodes,
    say_seconds,
    sentence,
)
from pipelines.results.scores import METHODS_ARTIFACT, accuracies, differences_of_methods
from pipelines.results.shots import read_shots
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.params import used_params
from tl_core.scoring.episodes import estimate, paired_difference
from tl_core.scoring.paired import PairedDifference

_FITTED = "It is fitted to every labelled image; the scores are those of its recipe on images that it was not given."
_FLOOR, _BASE, _FOUND = "raw pixels", "pretrained", "pretrained + searched"


def report(run: Run) -> Page:
    """Report a main run."""
    methods: dict[str, str] = json.loads(fetch_artifact(run.info.run_id, METHODS_ARTIFACT).read_text())
    scores = {name: list(accuracies(run_id).values()) for name, run_id in methods.items()}
    differences = differences_of_methods(methods)
    *_, (name, found_id) = methods.items()
    found = mlflow.MlflowClient().get_run(found_id)
    steps = steps_of(run)
    return Page(
        title_of(run),
        sentence(say_estimate(estimate(scores[name])), say_gain(differences[name, _FLOOR], "the raw pixels")),
        [*_warnings(run), *_advise(differences, name), task_of(found), other_images(found)],
        [
            classifier_section(steps, steps["fit"][-1], _FITTED),
            methods_section(
                {name: estimate(values) for name, values in scores.items()}, _differences(differences, scores)
            ),
            *([shots_section(read_shots(run.info.run_id))] if used_params(run).get("shots") else []),
            distribution_section(found),
            *answers_sections(found),
            features_section(found),
            *map(search_section, steps.get("search", [])),
            *map(pretraining_section, steps.get("pretrain", [])),
            cost_section(run, *((f"of that, {kind}", _time_of(of_kind)) for kind, of_kind in steps.items())),
            _origin(run, methods, steps),
        ],
    )


def _advise(differences: Mapping[tuple[str, str], PairedDifference], name: str) -> list[str]:
    """Say what the search gained, and warn where the classifier does no better than no network at all."""
    searched = differences.get((_FOUND, _BASE))
    gained = [f"What the search found is {say_gain(searched, 'the default recipe')}."] if searched else []
    is_better = differences[name, _FLOOR].low > 0
    return gained if is_better else ["Mind that raw pixels may do as well: try another backbone.", *gained]


def _warnings(run: Run) -> list[str]:
    return [f"Mind that {run.data.tags['warning']}."] if "warning" in run.data.tags else []


def _differences(
    differences: Mapping[tuple[str, str], PairedDifference], scores: Mapping[str, Sequence[float]]
) -> Table:
    beside = {(a, b): say_over_episodes(paired_difference(scores[a], scores[b])) for a, b in differences}
    return difference_table(
        [
            [f"{a} - {b}", say_difference(found, found.is_significant, beside[a, b])]
            for (a, b), found in differences.items()
        ]
    )


def _time_of(steps: Sequence[Run]) -> str:
    times = "" if len(steps) == 1 else f" in {len(steps)} runs"
    return say_seconds(sum(map(seconds_of, steps))) + times


def _origin(run: Run, methods: Mapping[str, str], steps: Mapping[str, Sequence[Run]]) -> Section:
    of_methods = [(f"finetune run, {name}", run_id) for name, run_id in methods.items()]
    others = [(f"{kind} run", of_kind[-1].info.run_id) for kind, of_kind in steps.items() if kind != "finetune"]
    return origin_section(run, *of_methods, *others)
