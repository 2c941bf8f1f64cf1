"""The gate: who may take the champion's place, and what it says."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from registry.gate import Budgets, Champion, Evidence, Measured, Missing, check_file, decide, decide_first

CLASSES = ("frost", "rain", "sun")


def on_images(right: str, prefix: str = "", classes: tuple[str, ...] = CLASSES) -> Evidence:
    """A 1 for each test image that was classified right, a 0 for the others."""
    return Evidence({f"{prefix}{at}": float(hit) for at, hit in enumerate(right)}, classes, "test images")


def evidence(*accuracies: float, task: str = "3-way 5-shot") -> Evidence:
    """The mean over episodes for each image."""
    return Evidence({str(at): accuracy for at, accuracy in enumerate(accuracies)}, CLASSES, "episodes", task)


def against(*champions: Evidence | Missing) -> list[Champion]:
    """The present champion first; the first version is the last of them."""
    return [Champion(str(len(champions) - at), scores) for at, scores in enumerate(champions)]


def lower_end(reason: str) -> float:
    """The bound that a reason gives, in points."""
    found = re.search(r"([\d.]+) points (better|worse) \(", reason)
    assert found is not None
    return float(found[1]) * (1 if found[2] == "better" else -1)


def test_a_better_challenger_is_promoted_with_its_difference_in_one_sentence() -> None:
    decision = decide(on_images("1" * 40), against(on_images("1100" * 10)), tolerance=0.01)
    assert decision.promote
    assert re.fullmatch(
        r"against champion version 1 \+50\.00 points on 40 shared images; "
        r"it is at least \d\d\.\d\d points better \(1\.00 worse is allowed\)",
        decision.reason,
    )


@pytest.mark.parametrize("n", [10, 20, 30, 50, 100, 367])
def test_equal_predictions_on_few_images_say_too_little_and_the_reason_says_how_much(n: int) -> None:
    # 0 losses in n images: upper end of Clopper and Pearson's interval, 1 - 0.025 ** (1 / n)
    reach = 100 * (1 - 0.025 ** (1 / n))
    decision = decide(on_images("1" * n), against(on_images("1" * n)), tolerance=0.01)
    assert not decision.promote
    assert lower_end(decision.reason) == pytest.approx(-reach, rel=0.03)
    assert (
        f"with {n} images even a version that predicts exactly alike may be {reach:.2f} points worse" in decision.reason
    )
    assert decide(on_images("1" * n), against(on_images("1" * n)), tolerance=1.1 * reach / 100).promote


def test_equal_predictions_pass_where_the_images_are_enough_for_the_tolerance() -> None:
    assert decide(on_images("10" * 200), against(on_images("10" * 200)), tolerance=0.01).promote
    assert not decide(on_images("10" * 200), against(on_images("10" * 200)), tolerance=0.0).promote


@pytest.mark.parametrize("n", [10, 20, 30, 50, 100])
def test_a_challenger_that_is_5_points_worse_is_seldom_promoted(n: int) -> None:
    rng = np.random.default_rng(n)
    champion = rng.random((200, n)) < 0.85
    lost, won = (rng.random((200, n)) < share for share in (0.1 / 0.85, 0.05 / 0.15))  # 10 and 5 points
    promoted = 0
    for right, less, more in zip(champion, lost, won, strict=True):
        challenger = np.where(right, ~less, more)
        promoted += decide(as_text(challenger), against(as_text(right)), tolerance=0.01).promote
    assert promoted <= 5  # of 200: 2.5 %


def as_text(hits: np.ndarray) -> Evidence:
    return on_images("".join(str(int(hit)) for hit in hits))


def test_images_are_compared_in_pairs_not_as_two_means() -> None:
    hard_and_easy = evidence(*([0.2, 0.9, 0.3, 0.8] * 30))
    better = evidence(*([0.3, 1.0, 0.4, 0.9] * 30))
    assert decide(better, against(hard_and_easy), tolerance=0.0).promote
    assert not decide(hard_and_easy, against(better), tolerance=0.0).promote


def test_near_duplicates_count_as_one_image() -> None:
    alone = on_images("1" * 40)
    copies = replace(alone, groups={image: int(image) % 4 for image in alone.accuracies})
    champion = on_images("0" * 40)
    bounds = [lower_end(decide(one, against(champion), tolerance=1.0).reason) for one in (alone, copies)]
    assert bounds[0] == pytest.approx(100 * (2 * 0.025 ** (1 / 40) - 1), abs=2)
    assert bounds[1] == pytest.approx(100 * (2 * 0.025 ** (1 / 4) - 1), abs=2)


def test_small_losses_do_not_add_up_over_many_champions() -> None:
    """Each step loses 5 of 2,000 images more: 0.25 points, less than the tolerance."""
    n = 2000
    versions = [on_images("0" * (5 * step) + "1" * (n - 5 * step)) for step in range(11)]
    promoted = [versions[0]]
    for challenger in versions[1:]:
        if decide(challenger, against(*promoted[::-1]), tolerance=0.01).promote:
            promoted.append(challenger)
    assert 2 <= len(promoted) <= 4  # of eleven; 20 losses are the tolerance
    against_the_last_alone = decide(versions[10], against(versions[9]), tolerance=0.01)
    assert against_the_last_alone.promote
    decision = decide(versions[10], against(*promoted[::-1]), tolerance=0.01)
    assert decision.reason.startswith("against champion version 1 -2.50 points on 2,000 shared images")


REFUSED = [
    (Missing(), against(on_images("1" * 20)), "the challenger's scores cannot be read"),
    (on_images("1" * 20), against(Missing()), "the scores of champion version 1 cannot be read"),
    (on_images("1" * 20), against(Missing("have no content hashes")), "champion version 1 have no content hashes"),
    (
        on_images("1" * 20),
        against(evidence(*[0.5] * 20)),
        "scored on test images, champion version 1 on 3-way 5-shot episodes; score both alike, or register it under",
    ),
    (
        evidence(*[0.9] * 20, task="2-way 5-shot"),
        against(evidence(*[0.5] * 20)),
        "scored on 2-way 5-shot episodes, champion version 1 on 3-way 5-shot episodes",
    ),
    (
        on_images("1" * 20, classes=(*CLASSES, "wind")),
        against(on_images("0" * 20)),
        "the challenger has other classes (with wind) than champion version 1; register it under another name",
    ),
    (
        on_images("1" * 20, classes=("frost", "wind")),
        against(on_images("0" * 20)),
        "other classes (with wind and without rain, sun)",
    ),
    (
        on_images("1" * 20, prefix="new"),
        against(on_images("0" * 20)),
        "challenger and champion version 1 share no image; score both on the same images",
    ),
    (on_images("1" * 9), against(on_images("0" * 20)), "share 9 of the 10 images that are needed"),
    (evidence(0.9, math.nan, *[0.9] * 10), against(evidence(*[0.5] * 12)), "is no number"),
    (evidence(*[0.9] * 12), against(evidence(0.5, math.nan, *[0.5] * 10)), "is no number"),
]


@pytest.mark.parametrize(("challenger", "champions", "reason"), REFUSED)
def test_what_cannot_be_compared_is_refused_with_the_rule_in_one_sentence(
    challenger: Evidence | Missing, champions: list[Champion], reason: str
) -> None:
    decision = decide(challenger, champions, tolerance=1.0)
    assert not decision.promote
    assert reason in decision.reason
    assert "\n" not in decision.reason


def test_of_more_images_those_that_both_have_decide() -> None:
    old = on_images("0" * 20)
    more = Evidence(
        {**on_images("1" * 20).accuracies, **on_images("0" * 500, "new").accuracies}, CLASSES, "test images"
    )
    decision = decide(more, against(old), tolerance=0.0)
    assert decision.promote
    assert "on 20 shared images" in decision.reason
    assert not decide(replace(more, accuracies={**more.accuracies, **old.accuracies}), against(old), 0.0).promote


def test_a_former_champion_that_cannot_be_compared_is_left_out_by_name() -> None:
    champions = against(on_images("0" * 20), Missing(), on_images("1" * 20, classes=("frost", "wind")))
    decision = decide(on_images("1" * 20), champions, tolerance=0.0)
    assert decision.promote
    assert decision.reason.endswith("; left out, as they cannot be compared: versions 2, 1")


def test_the_first_challenger_needs_no_comparison_but_scores() -> None:
    decision = decide_first(on_images("1"))
    assert (decision.promote, decision.reason) == (True, "there was no champion")
    decision = decide_first(Missing())
    assert (decision.promote, decision.reason) == (False, "the challenger's scores cannot be read")


@pytest.mark.parametrize(
    ("measured", "budgets", "reason"),
    [
        (Measured(None, 1, 1), Budgets(), "the parity of the exported file cannot be read"),
        (Measured(False, 1, 1), Budgets(), "the exported file does not answer as torch does"),
        (Measured(True, 45.2, 1), Budgets(max_megabytes=45), "the file takes 45.2 MB, the budget is 45"),
        (Measured(True, 1, 30.1), Budgets(max_latency_ms=30), "the file takes 30.1 ms per image, the budget is 30"),
        (Measured(True, 1, math.nan), Budgets(max_latency_ms=30), "the file takes nan ms per image"),
        (Measured(True, None, 1), Budgets(max_megabytes=45), "how many MB the file takes cannot be read"),
        (Measured(True, 1, None), Budgets(max_latency_ms=30), "how many ms per image the file takes cannot be read"),
    ],
)
def test_a_file_without_parity_or_over_a_budget_is_refused(measured: Measured, budgets: Budgets, reason: str) -> None:
    decision = check_file(measured, budgets)
    assert not decision.promote
    assert reason in decision.reason


@pytest.mark.parametrize("budgets", [Budgets(), Budgets(45, 30), Budgets(45.0, 0)])
def test_a_file_at_its_budgets_passes(budgets: Budgets) -> None:
    assert check_file(Measured(True, 45, 30), budgets).promote


def test_without_budgets_neither_size_nor_speed_need_be_known() -> None:
    assert check_file(Measured(True, None, None), Budgets()).promote
