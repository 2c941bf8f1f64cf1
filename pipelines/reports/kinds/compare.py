"""The report of a comparison: of finetune runs on the same episodes, or of others on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlflow.entities import Run

from pipelines.reports.charts import make_intervals
from pipelines.reports.origin import cost_section, origin_section, title_of
from pipelines.reports.page import Page, Row, Section, Table
from pipelines.reports.sections import curves_section
from pipelines.reports.words import say_difference, say_estimate, say_interval, say_over_episodes, sentence
from pipelines.results.comparable import settings_that_differ
from pipelines.results.estimates import compare_estimates, load_estimates
from pipelines.results.scores import (
    compare_over_images,
    image_accuracies,
    named_runs,
    paired_accuracies,
    run_ids,
)
from pipelines.results.trainings import curve_of, load_trainings
from pipelines.store.find import find_run
from pipelines.store.params import used_params
from pipelines.store.runs import KIND
from tl_core.scoring.episodes import Estimate, estimate, paired_difference
from tl_core.scoring.images import Interval, wilson
from tl_core.scoring.paired import PairComparison

_ACCURACIES = "Accuracy of each in %, with its interval."


def report(run: Run) -> Page:
    """Report a compare run: the best, and the differences that are more than luck."""
    ids = run_ids(used_params(run)["runs"])
    others = {"train": _compare_trainings, "classify": _compare_estimates}
    kind = find_run(ids[0], "finetune", *others).data.tags[KIND]
    if kind in others:
        return others[kind](run, ids)
    runs = named_runs(ids)
    scores = paired_accuracies(runs)
    results = {name: estimate(values) for name, values in scores.items()}
    pairs = compare_over_images({name: image_accuracies(of.info.run_id) for name, of in runs.items()})
    best = max(results, key=lambda name: results[name].mean)
    rows = pair_rows(pairs, differences_over_episodes(scores, pairs))
    return Page(
        title_of(run),
        sentence(f"{best}: {say_estimate(results[best])}", _say_standing(best, pairs)),
        [
            "All were scored on the same episodes. A pair is called significantly different where the choice of images "
            "is a poor explanation, with the number of pairs allowed for. More episodes of the same images narrow "
            "nothing but the interval over episodes."
        ],
        [
            methods_section(results, difference_table(rows)),
            _settings_section(runs),
            cost_section(run),
            origin_section(run),
        ],
    )


def _compare_trainings(run: Run, ids: Sequence[str]) -> Page:
    trainings = load_trainings(ids)
    results = {training.name: wilson(training.hits) for training in trainings}
    pairs = compare_over_images({one.name: image_accuracies(one.run.info.run_id) for one in trainings})
    best = max(results, key=lambda name: results[name].value)
    rows = pair_rows(pairs, [])
    headline = f"{best}: {say_interval(results[best])} of {len(trainings[0].hits):,} test images"
    return Page(
        title_of(run),
        sentence(headline, _say_standing(best, pairs)),
        ["All were scored on the same images. p allows for the number of pairs."],
        [
            _images_section(results, difference_table(rows)),
            _settings_section({training.name: training.run for training in trainings}),
            curves_section("Learning", [curve_of(training) for training in trainings], []),
            cost_section(run),
            origin_section(run),
        ],
    )


def _compare_estimates(run: Run, ids: Sequence[str]) -> Page:
    estimated = load_estimates(ids)
    pairs = compare_estimates(estimated)
    results = {one.name: one.estimate.headline for one in estimated}
    best = max(results, key=lambda name: _lead(name, pairs))
    return Page(
        title_of(run),
        f"{best}: {_say_standing(best, pairs)}, on the images that both have",
        [
            "Each accuracy is of a file on new images like those that it was made from. Where these are not the same, "
            "as after corrections, it may be harder or easier to be right. The differences are on the images that both "
            "have."
        ],
        [
            _images_section(results, difference_table(pair_rows(pairs, []))),
            _settings_section({one.name: one.run for one in estimated}),
            cost_section(run),
            origin_section(run),
        ],
    )


def _lead(name: str, pairs: Sequence[PairComparison]) -> float:
    """Sum of the differences of one to all others."""
    return sum(pair.difference.value * ((pair.first == name) - (pair.second == name)) for pair in pairs)


def differences_over_episodes(scores: Mapping[str, Sequence[float]], pairs: Sequence[PairComparison]) -> list[Estimate]:
    """Estimate the paired differences of several methods on the same episodes, in the order of `pairs`."""
    return [paired_difference(scores[pair.first], scores[pair.second]) for pair in pairs]


def pair_rows(pairs: Sequence[PairComparison], over_episodes: Sequence[Estimate]) -> list[list[str]]:
    """Rows of a table of differences; `over_episodes` is empty where nothing was scored on episodes."""
    beside = [f", {say_over_episodes(found)}" for found in over_episodes] or [""] * len(pairs)
    return [
        [
            f"{pair.first} - {pair.second}",
            say_difference(pair.difference, pair.is_significant, f"p = {pair.p_holm:.2g}{more}"),
        ]
        for pair, more in zip(pairs, beside, strict=True)
    ]


def _say_standing(best: str, pairs: Sequence[PairComparison]) -> str:
    """Say whether the highest is the best, or from which others it is not significantly different."""
    rivals = [
        pair.second if pair.first == best else pair.first
        for pair in pairs
        if best in (pair.first, pair.second) and not pair.is_significant
    ]
    if rivals:
        return f"the highest, not significantly different from {', '.join(rivals)}"
    return "significantly better than all others"


def _settings_section(runs: Mapping[str, Run]) -> Section:
    """Section on the settings that differ between the runs."""
    columns, *rows = settings_that_differ(runs)
    words = [] if rows else ["They were given the same settings."]
    return Section("Settings", words, [Table("Settings in which they differ", columns, rows)] if rows else [])


def _images_section(results: Mapping[str, Interval], differences: Table) -> Section:
    rows = [
        Row(name, 100 * found.value, 100 * found.low, 100 * found.high, say_interval(found))
        for name, found in results.items()
    ]
    return Section("Comparison", [], [make_intervals(_ACCURACIES, rows), differences])


def methods_section(results: Mapping[str, Estimate], differences: Table) -> Section:
    """Accuracies on the same episodes, and their differences."""
    rows = [
        Row(name, 100 * found.mean, 100 * found.low, 100 * found.high, say_estimate(found))
        for name, found in results.items()
    ]
    return Section("Comparison", [], [make_intervals(_ACCURACIES, rows), differences])


def difference_table(rows: Sequence[Sequence[str]]) -> Table:
    """Differences in words, one a row."""
    return Table("Differences on the same episodes or images, in points", ["pair", "difference"], rows)
