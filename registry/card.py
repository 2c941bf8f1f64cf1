"""The model card of a version: what it was made from, how good it is and how sure that is, what it is not for."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry.gate import ScoredOn
from tl_core.scoring.unlike import REFUSED

MAX_CHARACTERS = 5000
"""What MLflow keeps of a version's description."""

_MARKUP = re.compile(r"[\\`*<>\[\]]")
_MOST_CLASSES, _MOST_CONFUSIONS = 30, 5
_HOW_GOOD: dict[ScoredOn, str] = {
    "episodes": "of this backbone and recipe on {sample}. The classifier itself was fitted to all labelled images; "
    "no image was left to score it on.",
    "test images": "of this classifier on {sample}. They chose nothing, and nothing was trained on them.",
    "out-of-fold images": "of this classifier on new images like those of {sample}. Each image was predicted by a "
    "classifier that was made in the same way without it.",
}
_SPEAKS_OF: dict[ScoredOn, str] = {
    "episodes": "other draws of the same images and the same backbone",
    "test images": "other images drawn as these were",
    "out-of-fold images": "new images drawn as these were",
}


@dataclass(frozen=True)
class Confusions:
    """Counts of predictions: positions of the true and the predicted class, and how often they met."""

    class_names: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class CardFacts:
    """Facts that a card is written from.

    Attributes:
        headline: the result in one sentence.
        links: what is said of an address, and the address, in MLflow's pages.
        accuracy: with its interval, as people read it.
        scored_on: what it was measured on, and `sample` which of them, in words.
        recipe: names and values of the training.
        file: metadata of the exported file.
        runs: ids of the runs that it came from, by what they did.
        confusions: None where none were kept.
    """

    name: str
    headline: str
    links: Mapping[str, str]
    accuracy: str
    scored_on: ScoredOn
    sample: str
    recipe: Mapping[str, str]
    file: Mapping[str, str]
    runs: Mapping[str, str]
    class_names: Sequence[str]
    confusions: Confusions | None


def write_card(facts: CardFacts, version: str) -> str:
    """The card of a version in Markdown, at most `MAX_CHARACTERS` long: the result in words, its evidence, the rest."""
    file = facts.file
    lines = [
        _plain(facts.headline),
        " | ".join(f"[{words}]({address})" for words, address in facts.links.items()),
        f"# {facts.name}",
        f"{len(facts.class_names)} classes: {_few(facts.class_names)}.",
        "## How good",
        f"Accuracy {facts.accuracy}, 95 % interval, {_HOW_GOOD[facts.scored_on].format(sample=facts.sample)}",
        *_confusion_lines(facts.confusions),
        "## Made from",
        f"- backbone: {file['backbone']}, weights {_weights(file)}",
        f"- target images: {_short(file['target_fingerprint'])}",
        f"- recipe: {_named(facts.recipe)}",
        f"- runs: {_named(facts.runs)}",
        *_belief_lines(file),
        "## Limits",
        "Every picture gets one of these classes, whatever it shows; set a least probability to abstain. "
        f"{_unlike(file)}The interval speaks of {_SPEAKS_OF[facts.scored_on]}, not of images unlike them.",
        "## How to use",
        f"`python -m serving classifier.onnx photos/ out.csv` with `data/classifier.onnx` of this version, or "
        f'`mlflow.pyfunc.load_model("models:/{facts.name}/{version}").predict([open("photo.jpg", "rb").read()])`. '
        f"Images are cropped to a square and scaled to {file['image_size']} pixels.",
    ]
    return "\n\n".join(lines)[:MAX_CHARACTERS]


def _weights(file: Mapping[str, str]) -> str:
    """Weights with the fingerprint of the images that they know, or with whose they are."""
    known = file.get("weights_credit") or f"source {_short(file['source_fingerprint'])}"
    return f"{file['weights']}, {known}"


def _belief_lines(file: Mapping[str, str]) -> list[str]:
    if "believe_from" not in file:
        return []
    wanted, bar = float(file["wanted_precision"]), float(file["believe_from"])
    return [
        "## When to believe it",
        f"From a probability of {bar:.0%} on, at least {wanted:.0%} of the predictions are right.",
    ]


def _unlike(file: Mapping[str, str]) -> str:
    if "unlike_below" not in file:
        return ""
    return (
        f"Pictures whose similarity to the nearest class is below {float(file['unlike_below']):.3f} are marked "
        f"`unlike`, as looking like none of the classes; so are about {REFUSED:.0%} of the pictures of these classes. "
        "Pictures that resemble a class pass unmarked. "
    )


def _confusion_lines(confusions: Confusions | None) -> list[str]:
    if confusions is None:
        return []
    names = confusions.class_names
    totals: Counter[int] = Counter()
    for true, _, count in confusions.counts:
        totals[true] += count
    shares = (
        (count / totals[true], names[true], names[answer])
        for true, answer, count in confusions.counts
        if answer != true
    )
    worst = heapq.nlargest(_MOST_CONFUSIONS, shares)
    if not worst:
        return ["No class was taken for another."]
    confused = (f"{_plain(t)} taken for {_plain(a)} {share:.1%}" for share, t, a in worst)
    return ["Most often confused: " + "; ".join(confused) + "."]


def _named(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_CLASSES} more" if len(names) > _MOST_CLASSES else ""
    return ", ".join(map(_plain, names[:_MOST_CLASSES])) + more


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names of classes and of data are their users'."""
    return _MARKUP.sub(r"\\\g<0>", text)


def _short(fingerprint: str) -> str:
    return fingerprint[:12] or "not recorded"
