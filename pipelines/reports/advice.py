"""Advice from the estimate of a delivered classifier: what is hard, what would help, and when to believe it."""

from __future__ import annotations

import numpy as np

from pipelines.reports.words import join_words, say_interval
from pipelines.results.delivered import DeliveredEstimate

MOST_NAMED = 5
"""Classes that are named where several are equally hard."""
_WORTH_IT = 0.02
"""Gain in accuracy by the last doubling of the images from which on more of them are advised."""


def advise(estimate: DeliveredEstimate) -> list[str]:
    """Say which class is the hardest, what would help, and from which probability on to believe a prediction."""
    return [_say_hardest(estimate), say_more_images(estimate), say_bar(estimate)]


def hardest_classes(estimate: DeliveredEstimate) -> list[int]:
    """Return the classes that are named rightly least often; several if they are so equally often."""
    recalls = [found.value for found in estimate.scores.recalls]
    return [label for label, recall in enumerate(recalls) if recall == min(recalls)]


def _say_hardest(estimate: DeliveredEstimate) -> str:
    recalls, labels = estimate.scores.recalls, hardest_classes(estimate)
    how_often = say_interval(recalls[labels[0]])
    if len(labels) == len(recalls):
        return f"All classes are named rightly equally often: {how_often}."
    names = join_words([estimate.class_names[label] for label in labels], MOST_NAMED)
    if len(labels) > 1:
        return f"Hardest are {names}: {how_often} of the images of each are named rightly."
    other = estimate.scores.taken_for[labels[0]]
    taken = f", most often taken for {estimate.class_names[other]}" if other >= 0 else ""
    return f"Hardest is {names}: {how_often} of its images are named rightly{taken}."


def say_more_images(estimate: DeliveredEstimate) -> str:
    """Say whether more images would help, by the last doubling of those that there are."""
    counts, names = estimate.counts, estimate.class_names
    hardest = join_words([names[label] for label in hardest_classes(estimate)], MOST_NAMED)
    if len(estimate.curve) < 2:
        return f"So few images cannot say what more of them would bring; label more of every class, of {hardest} first."
    before, after = estimate.curve[-2:]
    gain = after.accuracy.value - before.accuracy.value
    points = round(100 * gain, 1)
    gained = (
        f"{abs(points):.1f} {'more' if points > 0 else 'fewer'} of 100 rightly than"
        if points
        else "no more rightly than"
    )
    step = f"classifiers made of {after.n_images:.0f} of these images name {gained} those made of {before.n_images:.0f}"
    if gain >= _WORTH_IT:
        return f"More images will probably help ({step}): photograph {hardest} first."
    if estimate.headline.value >= 1 - _WORTH_IT:
        return f"There are enough images ({step})."
    fewest = names[int(np.argmin(counts))]
    return (
        f"More images of every class may help little ({step}): try other weights, and check the labels of {hardest}"
        + (f" and the few images of {fewest}." if fewest not in hardest and min(counts) * 3 < max(counts) else ".")
    )


def say_bar(estimate: DeliveredEstimate) -> str:
    """Say from which probability on to believe a prediction."""
    wanted = f"{100 * estimate.wanted_precision:.0f} of 100"
    if estimate.bar is None:
        return (
            f"These images are too few, or too hard, to say from which probability on {wanted} predictions are right: "
            "have every prediction checked that matters."
        )
    found = next(one for one in estimate.believed if one.bar == estimate.bar)
    if estimate.bar == 0:
        return f"Every prediction can be believed: at least {wanted} are right."
    return (
        f"Believe a prediction from a probability of {100 * estimate.bar:.0f} % on: about "
        f"{100 * found.answered.value:.0f} of 100 images get one, and at least {wanted} of these are right. "
        "Have the others checked."
    )
