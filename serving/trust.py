"""How far predictions are to be believed, in words, by what the file says of itself."""

from __future__ import annotations

import json
import math

from serving.model import OnnxClassifier
from serving.tables import Prediction
from tl_core.errors import InputError


def say_accuracy(model: OnnxClassifier) -> str:
    """An accuracy with its 95 % interval: `90.0 % (80.0 to 95.0)`; empty where the file has none of that form."""
    found = _accuracy_of(model)
    return f"{found[0]:.1f} % ({found[1]:.1f} to {found[2]:.1f})" if found else ""


def say_belief(model: OnnxClassifier, prediction: Prediction) -> str:
    """Say whether to believe a prediction, by what the file recommends."""
    if prediction.error:
        return f"This file cannot be read: {prediction.error}."
    if prediction.unlike:
        return "No: it looks like none of the classes."
    bar = _bar_of(model)
    if bar is None:
        return "Not known: the file was made from too few images to say. Have it checked."
    wanted = f"{_wanted(model)} of 100 predictions are right"
    probability = prediction.top[0][1]
    if probability >= bar:
        return f"Yes: {100 * probability:.0f} % is at least {100 * bar:.0f} %, from which on at least {wanted}."
    return (
        f"No: {100 * probability:.0f} % is below {100 * bar:.0f} %, from which on at least {wanted}. Have it checked."
    )


def say_trust(model: OnnxClassifier, n_learned: int = 0) -> str:
    """Say how far to believe the predictions for many images, to those who look through them.

    Args:
        n_learned: number of these images that the classifier was made from.
    """
    found, bar = _accuracy_of(model), _bar_of(model)
    parts = []
    if found:
        value, low, high = found
        parts.append(
            f"Of 100 images like those that the classifier learned from, about {value:.0f} are named rightly "
            f"({math.floor(low)} to {math.ceil(high)})."
        )
    if bar is not None:
        parts.append(f"From a probability of {100 * bar:.0f} % on, at least {_wanted(model)} of 100 are right.")
    elif found:
        parts.append("Even those with a high probability may be wrong: check each prediction that matters.")
    if n_learned:
        parts.append(f"It learned from {n_learned:,} of these images, and is too sure of them.")
    return " ".join([*parts, "An image of something else gets one of these names too: leave it without a label."])


def _accuracy_of(model: OnnxClassifier) -> tuple[float, float, float] | None:
    """An accuracy in percent with its 95 % interval; None where the file has none, or one of another form."""
    try:
        found = json.loads(model.metadata.get("accuracy", ""))
        value, low, high = (100 * float(found[end]) for end in ("mean", "low", "high"))
    except (ValueError, TypeError, LookupError):
        return None
    return value, low, high


def _bar_of(model: OnnxClassifier) -> float | None:
    try:
        return model.recommended_probability
    except InputError:
        return None


def _wanted(model: OnnxClassifier) -> str:
    return f"{100 * float(model.metadata.get('wanted_precision', 'nan')):.0f}"
