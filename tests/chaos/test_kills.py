"""A few of the kills that `python -m tests.chaos.kills` makes by the dozen."""

from __future__ import annotations

import pytest

from tests.chaos.kills import COMMANDS, Config, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),
]


def test_what_was_killed_and_repeated_equals_what_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    cases = run(Config(kills=2 * len(COMMANDS), seed=1))
    print(capsys.readouterr().out)
    found = [case.stale if case.has_registered_twice else case.lost + case.duplicated + case.stale for case in cases]
    assert found == [[]] * len(cases)
    assert not all(case.finished for case in cases)
