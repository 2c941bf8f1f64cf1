"""Accuracy against speed: which of several networks are beaten by no other in both?"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tl_core.errors import InputError
from tl_core.export.onnx_file import export_onnx
from tl_core.heads.classifier import Classifier
from tl_core.recipes.choices import Features, TestViews
from tl_core.search.studies import open_study

_SCORES = "scores"
_L2 = (1e-4, 1e-1)
_FEATURES: tuple[Any, ...] = ("last", "stages")  # every network that shows its stages has both
_REPEATS, _WARM = 15, 3


@dataclass(frozen=True)
class Design:
    """Design that is scored: a network by its name, the side of its input, the features of its head, and its views."""

    network: str
    image_size: int
    features: Features
    test_views: TestViews
    l2: float


@dataclass(frozen=True)
class Scored:
    """A design with its accuracy on each episode and the seconds that its exported file takes for one image."""

    number: int
    design: Design
    scores: tuple[float, ...]
    seconds: float
    start: float
    end: float


def run_designs(
    study: optuna.Study,
    networks: Sequence[str],
    sizes: Sequence[int],
    judge: Callable[[Design], tuple[Sequence[float], float]],
    n_trials: int,
) -> Iterator[Scored]:
    """Propose designs and judge them until the study holds `n_trials`, those among them that cannot be built.

    Args:
        study: of two objectives, accuracy to maximise and seconds to minimise.
        judge: from a design to its accuracies and its seconds per image.
    """
    while len([t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]) < n_trials:
        trial = study.ask()
        design = Design(
            network=trial.suggest_categorical("network", networks),
            image_size=trial.suggest_categorical("image_size", sizes),
            features=trial.suggest_categorical("features", _FEATURES),
            test_views=trial.suggest_categorical("test_views", get_args(TestViews)),
            l2=trial.suggest_float("l2", *_L2, log=True),
        )
        try:
            scores, seconds = judge(design)
        except InputError:  # such as the stages of a network that shows none
            study.tell(trial, state=TrialState.FAIL)
            continue
        trial.set_user_attr(_SCORES, list(scores))
        yield _scored(study.tell(trial, [float(np.mean(scores)), seconds]))


def all_scored(study: optuna.Study) -> list[Scored]:
    """Every design of a study that could be judged, those of earlier commands among them."""
    return [_scored(trial) for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]


def _scored(trial: FrozenTrial) -> Scored:
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    return Scored(
        trial.number,
        Design(**trial.params),
        tuple(trial.user_attrs[_SCORES]),
        trial.values[1],
        trial.datetime_start.timestamp(),
        trial.datetime_complete.timestamp(),
    )


def find_front(scored: Sequence[Scored]) -> list[Scored]:
    """Those that no other beats in accuracy and in speed, the fastest first; of equals, the first stays."""
    front: list[Scored] = []
    for one in sorted(scored, key=lambda s: (s.seconds, -np.mean(s.scores), s.number)):
        if not front or np.mean(one.scores) > np.mean(front[-1].scores):
            front.append(one)
    return front


def build_front_study(name: str, storage: str | None, seed: int) -> optuna.Study:
    """A study of accuracy and seconds; one that exists goes on. `storage` is as `open_storage` takes it."""
    study = open_study(name, storage, ("maximize", "minimize"))
    # Another seed for each continuation, or the first points would come again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=8)
    return study


def seconds_per_image(classifier: Classifier, image_size: int) -> float:
    """Median time that the exported file takes for one picture, on one core, without decoding."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "classifier.onnx")
        export_onnx(classifier, image_size, {"class_names": "[]"}, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        image = np.zeros((1, image_size, image_size, 3), dtype=np.uint8)
        times = []
        for _ in range(_WARM + _REPEATS):
            started = time.perf_counter()
            session.run(None, {"images": image})
            times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM:])
