"""Learning curve: accuracy by number of support images per class."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mlflow

from pipelines.results.scores import SHOTS_ARTIFACT, accuracy_of
from pipelines.store.artifacts import fetch_artifact
from tl_core.errors import InputError
from tl_core.recipes.choices import ChosenPart
from tl_core.recipes.episode import EpisodeShape
from tl_core.scoring.episodes import Estimate

if TYPE_CHECKING:
    from tl_core.data.dataset import ImageDataset

_LADDER = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_MOST_QUERIES = 15
_TOO_WIDE = 0.05  # half an interval, as a fraction, beyond which "not significantly different" is no news


def plan_shots(dataset: ImageDataset, shots: str, shape: EpisodeShape, part: ChosenPart) -> list[EpisodeShape]:
    """The shapes of the episodes that a learning curve is made of, by increasing number of support images.

    Args:
        shots: numbers separated by commas, `auto`, or empty for none.
        part: the images that episodes draw from; `auto` is all of them, or the half that is reported on.

    Raises:
        InputError: what was given is no list of numbers, or the target has too few images for one of them.
    """
    from tl_core.data.episodes import build_pool, can_be_halved, check_pool, fit_shape

    if not shots:
        return []
    pool = build_pool(dataset, ("report" if can_be_halved(dataset) else "all") if part == "auto" else part)
    smallest = min(pool.class_sizes)
    n_query = shape.n_query or max(1, min(_MOST_QUERIES, smallest // 4))
    numbers = [n for n in _LADDER if n + n_query <= smallest] if shots == "auto" else _read(shots)
    shapes = [fit_shape(pool, EpisodeShape(shape.n_way, n, n_query)) for n in numbers]
    for one in shapes:
        check_pool(pool, one)
    return shapes


def _read(shots: str) -> list[int]:
    parts = [part.strip() for part in shots.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"expected shots as auto, or numbers from 1 on separated by commas, got {shots!r}")
    return sorted({int(part) for part in parts})


def log_shots(runs: Mapping[int, str]) -> None:
    """Log the curve with the active run: a step for each number of support images; nothing where there is no run."""
    if not runs:
        return
    mlflow.log_dict({str(n_shot): run_id for n_shot, run_id in runs.items()}, SHOTS_ARTIFACT)
    curve = {n_shot: accuracy_of(run_id) for n_shot, run_id in runs.items()}
    for n_shot, found in curve.items():
        mlflow.log_metrics({"shots/accuracy": found.mean, "shots/accuracy_ci95": found.ci95}, step=n_shot)
        images = "image" if n_shot == 1 else "images"
        print(f"{n_shot:>4} labelled {images} per class: {found.percent()}")
    print(say_trend(curve))


def read_shots(main_run: str) -> dict[int, Estimate]:
    """The curve of a main run.

    Raises:
        InputError: it has none.
    """
    runs: dict[str, str] = json.loads(fetch_artifact(main_run, SHOTS_ARTIFACT).read_text())
    return {int(n_shot): accuracy_of(run_id) for n_shot, run_id in runs.items()}


def say_trend(curve: Mapping[int, Estimate]) -> str:
    """Say what the end of a learning curve promises of labelling more."""
    if len(curve) < 2:
        return "One number of images says nothing of more of them."
    (few, before), (many, after) = sorted(curve.items())[-2:]
    gained = after.mean - before.mean
    half_width = math.hypot(before.ci95, after.ci95)  # two means of different episodes
    step = f"From {few} to {many} labelled images per class it is {100 * gained:+.1f} ± {100 * half_width:.1f} points"
    if gained > half_width:
        return f"{step}: more images will help."
    if gained < -half_width:
        return f"{step}: more images do not help this backbone."
    if half_width > _TOO_WIDE:
        return f"{step}: with so few images and episodes nothing can be said of more."
    return f"{step}, not significantly different from none: with this backbone, more images may help little."
