"""Networks beside each other, on predictions whose score is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipelines.reports.kinds.classify import _say_faster
from pipelines.results.network_scores import NetworkScore, score_networks
from tl_core.crossvalidation.folds import Groups
from tl_core.crossvalidation.procedure import Procedure
from tl_core.scoring.images import Interval
from tl_core.scoring.out_of_fold import OutOfFold
from tl_core.scoring.paired import PairedDifference

LABELS = np.array([0] * 30 + [1] * 10)


def predictions(right: np.ndarray[Any, np.dtype[np.bool_]]) -> OutOfFold:
    n = len(LABELS)
    predicted = np.where(right, LABELS, 1 - LABELS)
    probabilities = np.where(predicted[:, None] == np.arange(2), 0.9, 0.1)
    zeros = np.zeros(n, np.int64)
    return OutOfFold(np.arange(n), zeros, np.arange(n) % 2, LABELS, probabilities, zeros, np.full(n, np.nan))


def procedure(**right: np.ndarray[Any, np.dtype[np.bool_]]) -> Procedure:
    """Of networks that are right on these images; the first one was taken."""
    alone = {name: predictions(of) for name, of in right.items()}
    taken = next(iter(right))
    classifier = SimpleNamespace(candidate=SimpleNamespace(features=taken))
    return cast("Procedure", SimpleNamespace(classifier=classifier, alone=alone, out_of_fold=alone[taken]))


GOOD = np.arange(40) < 36  # 30 of 30 and 6 of 10
POOR = np.arange(40) < 18  # 18 of 30 and 0 of 10
GROUPS = Groups(np.arange(40), 40)


def test_the_difference_weighs_classes_as_the_headline_does() -> None:
    found = procedure(good=GOOD, poor=POOR)
    milliseconds = {"good": 2.0, "poor": 1.0}
    of_data = score_networks(found, "data", GROUPS, milliseconds)
    balanced = score_networks(found, "balanced", GROUPS, milliseconds)
    assert [one.difference is None for one in of_data] == [True, False]
    for scores, expected in ((of_data, (18 - 36) / 40), (balanced, (18 / 30 - 1 - 6 / 10) / 2)):
        assert scores[1].difference is not None
        assert scores[1].difference.value == pytest.approx(expected)
        assert scores[1].difference.high < 0
    assert of_data[0].accuracy.value == pytest.approx(0.9)
    assert balanced[0].accuracy.value == pytest.approx(0.8)
    assert [one.milliseconds for one in of_data] == [2.0, 1.0]


def test_more_networks_widen_the_intervals() -> None:
    def width(*others: str) -> float:
        found = procedure(good=GOOD, **dict.fromkeys(others, POOR))
        difference = score_networks(found, "data", GROUPS, dict.fromkeys(("good", *others), 1.0))[1].difference
        assert difference is not None
        return difference.high - difference.low

    assert width("a", "b", "c", "d") > 1.1 * width("a")


@pytest.mark.parametrize(
    ("milliseconds", "high", "said"),
    [(10.0, 0.01, True), (10.0, -0.01, False), (25.0, 0.01, False)],
    ids=["as good and faster", "worse", "hardly faster"],
)
def test_a_faster_network_that_is_as_good_is_named(milliseconds: float, high: float, said: bool) -> None:
    share = Interval(0.9, 0.8, 0.95, 40)
    taken = NetworkScore("slow", share, None, 30.0)
    other = NetworkScore("quick", share, PairedDifference(-0.02, -0.05, high, 0.2, 40), milliseconds)
    assert _say_faster((taken, other), taken) == (
        ["quick is 3.0 times as fast and not significantly different."] if said else []
    )
