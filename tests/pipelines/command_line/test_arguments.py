"""Arguments as MLflow and its users write them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pipelines.command_line.arguments import plain_arguments
from pipelines.command_line.command import run_command_line
from pipelines.prepare import PrepareConfig
from pipelines.search import SearchConfig


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--image_size 32.0", "--image_size 32"),
        ("--image_size=32.0", "--image_size 32"),
        ("--image-size 1e2", "--image-size 100"),
        ("--n_trials 1E+3 --seed 0.0", "--n_trials 1000 --seed 0"),
        ("--n_trials -2.0", "--n_trials -2"),
        ("--image_size 32.5", "--image_size 32.5"),
        ("--image_size nan --seed inf", "--image_size nan --seed inf"),
        ("--image_size 0032", "--image_size 0032"),
        ("--seed 9007199254740993", "--seed 9007199254740993"),
        ("--max_lr 1e-2 --weight_decay 1.0 --target 32.0", "--max_lr 1e-2 --weight_decay 1.0 --target 32.0"),
        ("--weights None --target x", "--target x"),
        ("--weights=None --json", "--json"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_whole_numbers_and_unset_values_are_understood(given: str, meant: str) -> None:
    assert plain_arguments(SearchConfig, given.split()) == meant.split()


def test_a_command_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Any] = []
    monkeypatch.setattr(sys, "argv", ["prepare.py", "--data", "None", "--image_size", "1.6e1"])
    run_command_line(PrepareConfig, got.append)
    assert got == [PrepareConfig(image_size=16)]
