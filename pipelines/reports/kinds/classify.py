"""The report of a classify run: how good the file is on new images, when to believe it, and what would help."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from mlflow.entities import Run

from pipelines.reports.advice import MOST_NAMED, advise, hardest_classes, say_bar, say_more_images
from pipelines.reports.charts import chart_style, make_chart
from pipelines.reports.classifier import classifier_section, steps_of
from pipelines.reports.origin import cost_section, origin_section, title_of
from pipelines.reports.page import Gallery, Page, Picture, Section, Table
from pipelines.reports.predictions import answers_sections
from pipelines.reports.words import join_words, say_interval, say_points, say_seconds
from pipelines.results.delivered import (
    LEARNED_ARTIFACT,
    SUSPECTS_ARTIFACT,
    DeliveredEstimate,
    read_estimate,
)
from pipelines.results.figures import draw_learning_curve
from pipelines.results.headline import say_delivered
from pipelines.results.network_scores import NetworkScore
from pipelines.results.predictions import EXAMPLES_ARTIFACT
from pipelines.store.artifacts import fetch_artifact
from tl_core.errors import InputError

_STRIP, _MOST_SUSPECTS = 4, 8
_OFTEN_RIGHT = 0.8
"""Accuracy below which a label that a classifier disagrees with is seldom a wrong one."""
_CLEARLY = 1.5
"""Ratio of two times from which on one of two networks is called faster."""
_STAGES = ("images", "features", "folds", "records", "export")


def report(run: Run) -> Page:
    """Report a classify run."""
    run_id = run.info.run_id
    estimate = read_estimate(run_id)
    recalls = dict(zip(estimate.class_names, estimate.scores.recalls, strict=True))
    steps = steps_of(run)
    text = (
        "It is fitted to every labelled image. The estimate speaks of this file: each image was predicted by a "
        "classifier that was made in the same way without it."
    )
    seconds = [(name, run.data.metrics.get(f"seconds/{name}")) for name in _STAGES]
    return Page(
        title_of(run),
        say_delivered(estimate),
        [*advise(estimate), *(f"Mind that {sentence}." for sentence in estimate.notice)],
        [
            _overview_section(run_id, estimate),
            *([classifier_section(steps, run, text)] if "register" in steps else []),
            *answers_sections(run, recalls),
            _belief_section(estimate),
            *_suspects_sections(run_id, estimate.headline.value),
            *([_curve_section(estimate)] if len(estimate.curve) > 1 else []),
            *([_networks_section(estimate)] if len(estimate.networks) > 1 else []),
            _method_section(estimate),
            cost_section(run, *((f"of that, {name}", say_seconds(spent)) for name, spent in seconds if spent)),
            origin_section(run, *((f"{kind} run", steps[kind][-1].info.run_id) for kind in steps if kind != "fold")),
        ],
    )


def _overview_section(run_id: str, estimate: DeliveredEstimate) -> Section:
    scores = estimate.scores
    hardest = hardest_classes(estimate)
    bar = "not known" if estimate.bar is None else f"{100 * estimate.bar:.0f} %"
    as_here, balanced = say_interval(scores.accuracy), say_interval(scores.balanced_accuracy)
    accuracies = [["accuracy", as_here]]
    if as_here != balanced:
        accuracies = [
            ["accuracy, every class as frequent", balanced],
            ["accuracy, classes as frequent as here", as_here],
        ]
        if estimate.priors != "balanced":
            accuracies.reverse()
    rows = [
        *accuracies,
        [
            f"hardest: {join_words([estimate.class_names[label] for label in hardest], MOST_NAMED)}",
            say_interval(scores.recalls[hardest[0]]),
        ],
        [f"probability from which on {100 * estimate.wanted_precision:.0f} % are right", bar],
        ["labelled images", f"{sum(estimate.counts):,} of {len(estimate.counts)} classes"],
    ]
    sentences = [
        "In brackets: 95 % confidence intervals for this file on new images of the same kind. The first accuracy is "
        "the one above. Those further down are of other classifiers, or of some of the images, as is said there.",
    ]
    return Section("At a glance", sentences, [*_strip(run_id), Table("In a few lines", [], rows)])


def _strip(run_id: str) -> list[Gallery]:
    """A few images that were learned from, named rightly and mistaken."""
    learned = pd.read_parquet(fetch_artifact(run_id, LEARNED_ARTIFACT))[: 2 * _STRIP]
    examples = pd.read_parquet(fetch_artifact(run_id, EXAMPLES_ARTIFACT))
    is_right = examples["label"] == examples["prediction"]
    strips = {
        "Learned from": [
            Picture(jpeg, label, [label]) for jpeg, label in zip(learned["jpeg"], learned["label"], strict=True)
        ],
        "Named rightly, by a classifier that had not seen it": _pictures(examples[is_right], "{label}"),
        "Mistaken": _pictures(examples[~is_right], "is {label} \N{RIGHTWARDS ARROW} taken for {prediction}"),
    }
    return [Gallery(caption, pictures) for caption, pictures in strips.items() if pictures]


def _pictures(examples: pd.DataFrame, text: str) -> list[Picture]:
    columns = (examples[name][:_STRIP] for name in ("jpeg", "label", "prediction"))
    texts = [(jpeg, text.format(label=label, prediction=taken)) for jpeg, label, taken in zip(*columns, strict=True)]
    return [Picture(jpeg, words, [words]) for jpeg, words in texts]


def _belief_section(estimate: DeliveredEstimate) -> Section:
    n_images = sum(estimate.counts)
    rows = [
        [
            f"{100 * one.bar:.0f} %",
            f"{n_images * one.answered.value:.0f}",
            say_interval(one.answered),
            say_interval(one.right) if one.answered.value else "-",
        ]
        for one in estimate.believed
    ]
    columns = ["probability at least", "images", "of all images", "of these right"]
    sentences = [
        say_bar(estimate),
        "Each probability is of a classifier that had not seen the image.",
        *_say_repeats(estimate.n_repeats),
        "The share of few images is uncertain: look at its interval.",
    ]
    return Section("When to believe it", sentences, [Table("Predictions by their probability", columns, rows)])


def _say_repeats(n_repeats: int) -> list[str]:
    if n_repeats == 1:
        return []
    return [
        f"Each image was predicted by {n_repeats} classifiers; where one of them is above a probability, the image "
        f"counts as 1/{n_repeats}."
    ]


def _suspects_sections(run_id: str, accuracy: float) -> list[Section]:
    try:
        table = pd.read_parquet(fetch_artifact(run_id, SUSPECTS_ARTIFACT))
    except InputError:  # nothing is suspect
        return []
    galleries = [
        Gallery(
            f"{row['file']}: labelled {row['label']}, looks like {row['likely']}",
            [
                Picture(row["jpeg"], f"labelled {row['label']}", ["this image", f"labelled {row['label']}"]),
                Picture(row["nearest_label"], f"nearest of {row['label']}", ["nearest image of", row["label"]]),
                Picture(row["nearest_likely"], f"nearest of {row['likely']}", ["nearest image of", row["likely"]]),
            ],
        )
        for row in table[:_MOST_SUSPECTS].to_dict("records")
    ]
    whose = "Most of them are" if accuracy < _OFTEN_RIGHT else "Many of them may be"
    text = (
        "Classifiers that had not seen these images take them for another class than their label says. "
        f"{whose} mistakes of the classifier, not of the labels; but a wrong label is cheaper to mend than a new image "
        "is to find, so look at these first."
    )
    more = len(table) - _MOST_SUSPECTS
    others = (
        [f"Shown are the {_MOST_SUSPECTS} most suspect; {more} more are in {SUSPECTS_ARTIFACT}."] if more > 0 else []
    )
    return [Section("Suspect labels", [text, *others], galleries)]


def _curve_section(estimate: DeliveredEstimate) -> Section:
    curve = estimate.curve
    with chart_style():
        text = "Accuracy by number of labelled images, with its interval over images."
        chart = make_chart(draw_learning_curve([(one.n_images, one.accuracy) for one in curve]), "curve", text, 3)
    rows = [[f"{one.n_images:.0f}", say_interval(one.accuracy)] for one in curve]
    table = Table("Accuracy by number of labelled images", ["images", "accuracy"], rows)
    sentences = [
        say_more_images(estimate),
        "Each of these classifiers is made of a part of the images, with the settings that were chosen at the end. The "
        "estimate of the file is of all images, and of the choice too.",
    ]
    return Section("Learning curve", sentences, [chart, table])


def _networks_section(estimate: DeliveredEstimate) -> Section:
    """Networks that were chosen among; if another is as good and faster, the reader may want that one."""
    taken = next(one for one in estimate.networks if one.difference is None)
    rows = [
        [
            f"{one.network} (taken)" if one is taken else one.network,
            say_interval(one.accuracy),
            "" if one.difference is None else say_points(one.difference),
            f"{one.milliseconds:.1f}",
        ]
        for one in estimate.networks
    ]
    columns = ["network", "accuracy with it alone", f"difference to {taken.network}, points", "milliseconds per image"]
    text = (
        f"{taken.network} was taken: its probabilities were the best (least log loss), which tells networks apart with "
        "fewer images than accuracy does; another one may therefore stand here with a higher accuracy. The same "
        "procedure was run with each network alone, where the estimate of the file chooses anew in every fold. Where "
        "an interval of a difference holds 0, it may be chance. The time is that of the features on this machine."
    )
    return Section(
        "Networks",
        [text, *_say_faster(estimate.networks, taken)],
        [Table("Beside each other, on the same images", columns, rows)],
    )


def _say_faster(networks: Sequence[NetworkScore], taken: NetworkScore) -> list[str]:
    """Name the fastest network that is clearly faster than the taken one, and not significantly worse."""
    faster = [
        one
        for one in networks
        if one.difference is not None and one.difference.high > 0 and one.milliseconds * _CLEARLY < taken.milliseconds
    ]
    if not faster:
        return []
    best = min(faster, key=lambda one: one.milliseconds)
    times = taken.milliseconds / best.milliseconds
    assert best.difference is not None
    standing = "significantly better" if best.difference.low > 0 else "not significantly different"
    return [f"{best.network} is {times:.1f} times as fast and {standing}."]


def _method_section(estimate: DeliveredEstimate) -> Section:
    folds = f"{estimate.n_folds} folds, {'once' if estimate.n_repeats == 1 else f'{estimate.n_repeats} times'}"
    sentences = [
        f"Cross-validation over images in {folds}. In every fold, the choice among {len(estimate.candidates)} "
        "candidates, the temperature and the head are made anew without its images; images that show the same "
        f"({estimate.n_groups:,} groups of {sum(estimate.counts):,} images) stay in one fold. The intervals allow for "
        "classifiers that other images of the same kind would have given.",
    ]
    if estimate.n_folds == 2:
        sentences.append("With two images of a class nothing is left to choose by: the first candidate is taken.")
    rows = [
        [
            f"{one['weights']}, penalty {one['l2']:g}" + (" (taken)" if at == estimate.chosen else ""),
            f"{one['log_loss']:.3f}",
        ]
        for at, one in enumerate(estimate.candidates)
    ]
    table = Table("Candidates", ["weights and penalty of the head", "log loss"], rows, folded=True)
    return Section("Method", sentences, [table])
