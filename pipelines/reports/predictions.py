"""Sections on single predictions: recall by class, confusions, examples, calibration."""

from __future__ import annotations

import io
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Run
from numpy.typing import NDArray
from PIL import Image

from pipelines.reports.charts import chart_style, make_chart, make_intervals
from pipelines.reports.page import Gallery, Matrix, Picture, Row, Section, Table
from pipelines.reports.words import join_words, say_interval
from pipelines.results.feature_map import read_feature_map
from pipelines.results.figures import Map, draw_maps, draw_reliability
from pipelines.results.predictions import KeptAnswers, read_answers
from pipelines.results.scores import HARDEST_ARTIFACT, classes_of_episode, episodes_of
from pipelines.store.artifacts import fetch_artifact
from tl_core.errors import InputError
from tl_core.scoring.classification import confusion_matrix, shares_of_pairs
from tl_core.scoring.images import Interval

_MOST_DRAWN, _MOST_SHADED, _MOST_CONFUSIONS = 25, 30, 10
_MOST_CONFUSED = 3  # pairs that are confused equally often
_MOST_NAMED = 20
_MAP_PIXELS = 48


def answers_sections(run: Run, recalls: Mapping[str, Interval] | None = None) -> list[Section]:
    """Recall by class and confusions, examples, calibration, of a run; recalls are over its images if not given."""
    answers = read_answers(run.info.run_id)
    return [
        _classes_section(answers, recalls or answers.recalls()),
        _examples_section(answers),
        _calibration_section(answers),
    ]


def hardest_section(run: Run) -> list[Section]:
    """Section on the episode with the lowest accuracy and its mistakes; none for runs of earlier releases."""
    try:
        mistakes = pd.read_parquet(fetch_artifact(run.info.run_id, HARDEST_ARTIFACT))
    except InputError:
        return []
    episodes = episodes_of(run.info.run_id)
    hardest = episodes.sort_values("accuracy", kind="stable").iloc[0]
    if mistakes.empty:
        return [Section("Hardest episode", ["No episode has a mistake."])]
    sentences = [
        f"Episode {hardest['episode']:,} has the lowest accuracy, {100 * hardest['accuracy']:.1f} %. Its classes are "
        f"{join_words(list(map(str, hardest['classes'])), _MOST_NAMED)}."
    ]
    return [Section("Hardest episode", sentences, [Gallery("All of its mistakes", _pictures(mistakes))])]


def features_section(run: Run) -> Section:
    """Section on the features of one episode of a finetune run, as a map."""
    table = read_feature_map(run.info.run_id)
    pictures = [_pixels(jpeg) for jpeg in table["jpeg"]]
    names = {"before": "Before fine-tuning", "after": "After fine-tuning"}
    maps = [
        Map(title, table[[f"x_{at}", f"y_{at}"]].to_numpy(), list(table["label"]), list(table["support"]), pictures)
        for at, title in names.items()
        if f"x_{at}" in table
    ]
    sentences = ["What lies close together looks alike to the backbone. One episode; directions have no meaning."]
    sentences += say_left_out(classes_of_episode(run.info.run_id), set(table["label"]))
    if len(maps) == 1:
        sentences.append("Nothing of the backbone was trained, so there is one map.")
    with chart_style():
        text = (
            "Images at the first two principal components of their features, framed in the colour of their class: "
            "large ones are those that the classifier learns from, small ones those that it is asked about."
        )
        height = sum(0.6 + 4 * (float(one.places[:, 1].max()) + 0.12) / 1.12 for one in maps)
        chart = make_chart(draw_maps(maps), "features", text, height=height)
    return Section("Feature space", sentences, [chart])


def say_left_out(classes: Sequence[str], drawn: Collection[str]) -> list[str]:
    """Say which of an episode's classes a map does not show, each by name unless that would be a page of names."""
    left_out = [name for name in classes if name not in drawn]
    if not left_out:
        return []
    shown = f"Drawn are {len(drawn)} of its {len(classes)} classes, as many as colours can be told apart"
    if len(left_out) > _MOST_NAMED:
        return [f"{shown}: {join_words(sorted(drawn))}; the other {len(left_out)} are left out."]
    return [f"{shown}; left out: {join_words(left_out)}."]


def _pixels(jpeg: bytes) -> NDArray[np.uint8]:
    picture = Image.open(io.BytesIO(jpeg))
    picture.thumbnail((_MAP_PIXELS, _MAP_PIXELS))
    return np.asarray(picture)


def _classes_section(answers: KeptAnswers, of_classes: Mapping[str, Interval]) -> Section:
    recalls = dict(sorted(of_classes.items(), key=lambda pair: pair[1].value))
    hardest = dict(list(recalls.items())[:_MOST_DRAWN])
    caption = "Share of each class that is named rightly (recall) in %, with its interval; the hardest class first."
    if len(recalls) > len(hardest):
        caption = f"Recall of the {len(hardest)} hardest of {len(recalls)} classes in %, with intervals over images."
    drawn = make_intervals(caption, [_recall_row(name, found) for name, found in hardest.items()])
    rows = [[name, say_interval(found), f"{found.n:,}"] for name, found in recalls.items()]
    table = Table("Recall of every class", ["class", "recall", "images"], rows, folded=True)
    confusions = _confusions(answers)
    name, worst = next(iter(recalls.items()))
    sentences = [f"Hardest is {name}: {say_interval(worst)} of its images are named rightly."]
    if confusions:
        share = confusions[0][1]
        pairs = [words for words, of_pair in confusions if of_pair == share]
        each = " each" if len(pairs) > 1 else ""
        sentences.append(f"Most often confused: {join_words(pairs, _MOST_CONFUSED)}, {share} of the time{each}.")
    return Section("Classes", sentences, [drawn, table, *_confusion_parts(answers, confusions)])


def _recall_row(name: str, found: Interval) -> Row:
    return Row(name, 100 * found.value, 100 * found.low, 100 * found.high, say_interval(found))


def _confusions(answers: KeptAnswers) -> list[list[str]]:
    """The most frequent confusions, in words and shares of the true class."""
    shares, names = shares_of_pairs(answers.confusions), answers.class_names
    mistakes = np.flatnonzero(answers.confusions[:, 0] != answers.confusions[:, 1])
    order = mistakes[np.argsort(-shares[mistakes], kind="stable")[:_MOST_CONFUSIONS]]
    pairs = zip(answers.confusions[order, :2].tolist(), shares[order].tolist(), strict=True)
    return [[f"{names[true]} taken for {names[taken]}", f"{100 * share:.1f} %"] for (true, taken), share in pairs]


def _confusion_parts(answers: KeptAnswers, confusions: Sequence[Sequence[str]]) -> list[Table | Matrix]:
    if len(answers.class_names) <= _MOST_SHADED:
        caption = "Of the answers about each true class (row), the share in % for each class (column)"
        shares = confusion_matrix(answers.confusions, np.arange(len(answers.class_names)))
        return [Matrix(caption, answers.class_names, shares.tolist())]
    return [Table("The most frequent confusions", ["confusion", "share"], confusions)] if confusions else []


def _examples_section(answers: KeptAnswers) -> Section:
    wrong = answers.examples[answers.examples["label"] != answers.examples["prediction"]]
    right = answers.examples[answers.examples["label"] == answers.examples["prediction"]]
    sentences = ["Each image is as the classifier sees it, with its prediction and how sure it was."]
    if wrong.empty:
        sentences.append("There is no mistake to show.")
    parts = [Gallery("Right: drawn at random", _pictures(right))] if not right.empty else []
    if not _has_nearest(wrong):
        mistakes = [Gallery("Wrong: the most confident mistakes", _pictures(wrong))] if not wrong.empty else []
        return Section("Examples", sentences, [*mistakes, *parts])
    sentences.append(
        "The most confident mistakes come first, each beside the labelled images that are nearest to it by the "
        "features of the backbone: of the class that it was taken for, and of its own."
    )
    return Section("Examples", sentences, [*map(_beside_nearest, wrong.to_dict("records")), *parts])


def _has_nearest(wrong: pd.DataFrame) -> bool:
    """Return whether a run has kept labelled images beside its mistakes, as those of earlier versions have not."""
    return "nearest_label" in wrong and not wrong.empty


def _beside_nearest(row: Mapping[Hashable, Any]) -> Gallery:
    """A mistake beside the nearest image of the class it was taken for, and of its own class."""
    mistake = _picture(row["file"], row["label"], row["prediction"], row["probability"], row["jpeg"])
    taken, *file = mistake.caption
    nearest = [
        Picture(row[f"nearest_{of}"], f"nearest of {row[of]}", ["nearest image of", row[of]])
        for of in ("prediction", "label")
        if row[f"nearest_{of}"] is not None
    ]
    return Gallery(taken, [Picture(mistake.jpeg, mistake.text, ["this image", *file]), *nearest])


def _pictures(examples: pd.DataFrame) -> list[Picture]:
    columns = (examples[name] for name in ("file", "label", "prediction", "probability", "jpeg"))
    return [_picture(*row) for row in zip(*columns, strict=True)]


def _picture(file: str, label: str, prediction: str, probability: float, jpeg: bytes) -> Picture:
    sure = f"{100 * probability:.0f} %"
    if prediction == label:
        return Picture(jpeg, f"{label}, named rightly", [f"{label}, {sure}"])
    # Of a mistake the file is named: sometimes it is the label that is wrong.
    taken = f"is {label} \N{RIGHTWARDS ARROW} taken for {prediction}, {sure}"
    return Picture(jpeg, f"{label}, taken for {prediction}", [taken, PurePosixPath(file).name])


def _calibration_section(answers: KeptAnswers) -> Section:
    found = answers.reliability
    with chart_style():
        text = (
            "How often answers of each confidence are right; the larger a dot, the more answers. "
            "On the dashed line, confidence is accuracy."
        )
        chart = make_chart(draw_reliability(found), "reliability", text, height=3.6)
    rows = [
        [f"{100 * confidence:.0f} %", f"{100 * accuracy:.1f} %", f"{count:,}"]
        for count, confidence, accuracy in zip(found.counts, found.confidence, found.accuracy, strict=True)
    ]
    mean = float((found.counts * (found.confidence - found.accuracy)).sum() / found.counts.sum())
    sentences = [
        f"Confidence and accuracy are {100 * found.error:.1f} points apart on average (expected calibration error)."
    ]
    if 2 * abs(mean) > found.error:
        sentences.append(
            "The classifier is more sure than it should be." if mean > 0 else "It is less sure than it could be."
        )
    table = Table("Answers by confidence", ["confidence", "right", "answers"], rows, folded=True)
    return Section("Calibration", sentences, [chart, table])
