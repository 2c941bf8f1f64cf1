"""The gate: who may take the champion's place, and what it says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from registry.gate import Budgets, Evidence, Measured, check_file, decide, decide_first

EPISODES = "pool abc, seed 0, 5-way 5-shot"


def evidence(*accuracies: float, episodes: str = EPISODES) -> Evidence:
    return Evidence(episodes, dict(enumerate(accuracies)))


def on_images(right: str, sample: str = "images abc") -> Evidence:
    """A 1 for each test image that was classified right, a 0 for the others."""
    return Evidence(sample, {position: float(hit) for position, hit in enumerate(right)}, "test images")


CHAMPION = evidence(0.70, 0.75, 0.80, 0.72)


def test_a_better_challenger_is_promoted() -> None:
    decision = decide(evidence(0.80, 0.86, 0.90, 0.83), CHAMPION, tolerance=0.0)
    assert decision.promote
    # differences 0.10, 0.11, 0.10, 0.11: mean 0.105, sd 0.0057735, t(0.975, 3) = 3.182446
    # half-width 3.182446 * 0.0057735 / 2 = 0.0091869, lower end 0.0958131
    assert decision.reason == (
        "paired difference 10.50 +- 0.92 % (n=4), lower end 9.58 % is above -0.00 %"  # one line of a log
    )


def test_a_worse_challenger_is_refused() -> None:
    decision = decide(evidence(0.60, 0.66, 0.70, 0.61), CHAMPION, tolerance=0.02)
    assert not decision.promote
    assert "is not above -2.00 %" in decision.reason


def test_an_equal_challenger_passes_if_something_may_be_lost() -> None:
    decision = decide(CHAMPION, CHAMPION, tolerance=0.01)
    assert decision.promote
    assert decision.reason == "paired difference 0.00 +- 0.00 % (n=4), lower end 0.00 % is above -1.00 %"


def test_an_equal_challenger_is_refused_if_nothing_may_be_lost() -> None:
    assert not decide(CHAMPION, CHAMPION, tolerance=0.0).promote


def test_a_better_mean_with_a_wide_interval_is_refused() -> None:
    decision = decide(evidence(1.0, 0.5, 1.0, 0.6), CHAMPION, tolerance=0.01)
    assert not decision.promote


def test_episodes_are_compared_in_pairs_not_as_two_means() -> None:
    hard_and_easy = evidence(0.2, 0.9, 0.3, 0.8)
    slightly_better = evidence(0.22, 0.92, 0.32, 0.82)
    assert decide(slightly_better, hard_and_easy, tolerance=0.0).promote


@pytest.mark.parametrize(("tolerance", "promote"), [(0.25, False), (0.2500001, True)])
def test_a_lower_end_at_the_tolerance_is_not_above_it(tolerance: float, promote: bool) -> None:
    # Quarters are exact in binary: every difference is -0.25, and so is the lower end.
    assert decide(evidence(0.5, 0.25, 0.5), evidence(0.75, 0.5, 0.75), tolerance).promote is promote


def test_a_challenger_without_scores_is_refused() -> None:
    decision = decide(None, CHAMPION, tolerance=1.0)
    assert (decision.promote, decision.reason) == (False, "the challenger has no readable scores")


def test_a_champion_whose_scores_cannot_be_read_is_not_taken_for_absent() -> None:
    decision = decide(evidence(1.0, 1.0, 1.0, 1.0), None, tolerance=1.0)
    assert (decision.promote, decision.reason) == (False, "the champion's scores cannot be read")


def test_neither_having_scores_is_refused() -> None:
    assert not decide(None, None, tolerance=1.0).promote


NOT_RENEWED = (
    "challenger and champion were scored on different episodes; only other images with the champion's network, recipe "
    "and classes renew it: give the champion's these images first, then compare"
)


def test_scores_on_other_episodes_are_not_compared() -> None:
    decision = decide(evidence(1.0, 1.0, 1.0, episodes="pool abc, seed 1"), CHAMPION, tolerance=1.0)
    assert (decision.promote, decision.reason) == (False, NOT_RENEWED)


OLD = Evidence(EPISODES, dict.fromkeys(range(10), 0.73), method="resnet10 probe", pool="abc")


def renewed(high: float, low: float, n: int = 10) -> Evidence:
    """The champion's method on other images: episodes of two accuracies in turn."""
    accuracies = {index: low if index % 2 else high for index in range(n)}
    return Evidence("pool xyz, seed 0", accuracies, method="resnet10 probe", pool="xyz")


@pytest.mark.parametrize(
    ("challenger", "promote", "reason"),
    [
        # standard deviations 0.1 / sqrt(3.6) and 0; t(0.975, 9) = 2.262157, half-width 2.262157 * 0.0527046 / sqrt(10)
        (renewed(0.80, 0.70), True, "difference 2.00 +- 3.77 % (n=10), upper end 5.77 % is not below -1.00 %"),
        (renewed(0.75, 0.65), True, "difference -3.00 +- 3.77 % (n=10), upper end 0.77 % is not below -1.00 %"),
        (renewed(0.60, 0.50), False, "difference -18.00 +- 3.77 % (n=10), upper end -14.23 % is below -1.00 %"),
        (renewed(0.80, math.nan), False, "is below -1.00 %"),
        (renewed(0.80, 0.70, n=9), False, "different episodes, one of them on 9; at least 10 are needed"),
        (renewed(0.80, 0.70, n=0), False, "different episodes, one of them on 0; at least 10 are needed"),
        (replace(renewed(0.80, 0.70), method="resnet18 probe"), False, NOT_RENEWED),
        (replace(renewed(0.80, 0.70), pool="abc"), False, NOT_RENEWED),
    ],
    ids=["better", "not_told_apart", "worse", "nan", "few", "none", "other_network", "same_images_other_seed"],
)
def test_the_champions_own_method_follows_it_on_other_images_unless_its_score_is_lower(
    challenger: Evidence, promote: bool, reason: str
) -> None:
    decision = decide(challenger, OLD, tolerance=0.01)
    assert decision.promote is promote
    assert decision.reason.endswith(reason)


@pytest.mark.parametrize(
    ("challenger", "shared"), [({}, 0), ({7: 1.0, 8: 1.0}, 0), ({0: 1.0, 7: 1.0}, 1)], ids=["none", "others", "one"]
)
def test_fewer_than_two_shared_episodes_are_no_comparison(challenger: dict[int, float], shared: int) -> None:
    decision = decide(Evidence(EPISODES, challenger), CHAMPION, tolerance=1.0)
    assert (decision.promote, decision.reason) == (
        False,
        f"challenger and champion share {shared} episodes; at least 2 are needed",
    )


def test_only_shared_episodes_count_and_each_with_its_own_number() -> None:
    # In another order, and with a hopeless episode that the champion never played.
    challenger = Evidence(EPISODES, {9: 0.0, 3: 0.82, 2: 0.90, 1: 0.85, 0: 0.80})
    decision = decide(challenger, CHAMPION, tolerance=0.0)
    assert decision.promote
    assert "10.00 +- 0.00 % (n=4)" in decision.reason


@pytest.mark.parametrize(
    ("challenger", "promote", "difference"),
    [
        ("1111111111" * 20, True, "20.00 % (14.50 to 25.50, n=200), lower end 14.50 % is above -1.00 %"),
        ("0111111110" * 20, True, "0.00 % (0.00 to 0.00, n=200), lower end 0.00 % is above -1.00 %"),
        ("0011111110" * 20, False, "-10.00 % (-14.50 to -6.00, n=200), lower end -14.50 % is not above -1.00 %"),
        ("1111111100" * 20, False, "0.00 % (-6.00 to 6.00, n=200), lower end -6.00 % is not above -1.00 %"),
    ],
    ids=["better", "equal", "worse", "as_good_on_other_images"],
)
def test_on_test_images_the_answers_are_compared_one_by_one(challenger: str, promote: bool, difference: str) -> None:
    decision = decide(on_images(challenger), on_images("0111111110" * 20), tolerance=0.01)
    assert decision.promote is promote
    assert decision.reason == f"paired difference {difference}"


def test_scores_on_other_test_images_are_not_compared() -> None:
    decision = decide(on_images("1111", sample="images xyz"), on_images("0000"), tolerance=1.0)
    assert (decision.promote, decision.reason) == (
        False,
        "challenger and champion were scored on different test images",
    )


@pytest.mark.parametrize("swapped", [False, True])
def test_episodes_are_not_compared_with_test_images(swapped: bool) -> None:
    challenger, champion = (CHAMPION, on_images("0000")) if swapped else (on_images("1111"), CHAMPION)
    decision = decide(challenger, champion, tolerance=1.0)
    assert not decision.promote
    assert decision.reason == (
        f"the challenger was scored on {challenger.scored_on}, the champion on {champion.scored_on}"
    )


@pytest.mark.parametrize("who", ["challenger", "champion"])
def test_a_score_that_is_no_number_never_promotes(who: str) -> None:
    broken, good = evidence(0.9, math.nan, 0.9), evidence(0.5, 0.5, 0.5)
    challenger, champion = (broken, good) if who == "challenger" else (good, broken)
    assert not decide(challenger, champion, tolerance=1.0).promote


def test_the_first_challenger_needs_no_comparison_but_scores() -> None:
    decision = decide_first(CHAMPION)
    assert (decision.promote, decision.reason) == (True, "there was no champion")
    decision = decide_first(None)
    assert (decision.promote, decision.reason) == (False, "the challenger has no readable scores")


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
