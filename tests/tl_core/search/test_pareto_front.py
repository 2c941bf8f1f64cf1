"""The front of accuracy and speed: nobody on it is beaten in both, and everybody else is."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tl_core.errors import InputError
from tl_core.heads.classifier import Classifier
from tl_core.networks.backbones import BackboneSpec, build_backbone, n_features
from tl_core.search.pareto_front import (
    Design,
    Scored,
    all_scored,
    build_front_study,
    find_front,
    run_designs,
    seconds_per_image,
)

DESIGN = Design("a", 64, "last", "none", 1e-3)


def scored(number: int, accuracy: float, seconds: float) -> Scored:
    return Scored(number, DESIGN, (accuracy,), seconds, 0.0, 0.0)


def test_the_front_of_four() -> None:
    slow_best, fast, beaten, middle = (
        scored(0, 0.9, 3.0), scored(1, 0.5, 1.0), scored(2, 0.6, 2.5), scored(3, 0.8, 2.0)
    )  # fmt: skip
    assert find_front([slow_best, fast, beaten, middle]) == [fast, middle, slow_best]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=30))
def test_nobody_on_the_front_is_beaten_and_everybody_else_is(points: list[tuple[int, int]]) -> None:
    all_of_them = [scored(i, accuracy / 10, seconds) for i, (accuracy, seconds) in enumerate(points)]
    front = find_front(all_of_them)
    for one in all_of_them:
        better = [f for f in front if f is not one and f.seconds <= one.seconds and f.scores[0] >= one.scores[0]]
        assert bool(better) == (one not in front)


def test_a_study_finds_the_network_that_is_better_and_faster() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def judge(design: Design) -> tuple[list[float], float]:
        return ([0.9, 0.8], 0.1) if design.network == "good" else ([0.5, 0.6], 0.2)

    study = build_front_study("s", None, 0)
    results = list(run_designs(study, ["bad", "good"], [32], judge, 12))
    assert [one.number for one in results] == list(range(12))
    assert {one.design.network for one in find_front(results)} == {"good"}
    assert {trial.params["network"] for trial in study.best_trials} == {"good"}
    assert list(run_designs(study, ["bad", "good"], [32], judge, 12)) == []
    assert all_scored(study) == results


def test_a_study_in_a_journal_goes_on(tmp_path: Path) -> None:
    storage = f"journal:{tmp_path / 'studies'}"

    def results(n_trials: int) -> list[Scored]:
        return list(run_designs(build_front_study("s", storage, 0), ["a"], [32], lambda _: ([0.5], 0.1), n_trials))

    assert [one.number for one in results(2)] == [0, 1]
    assert [one.number for one in results(3)] == [2]


def test_a_design_that_cannot_be_built_is_one_of_the_budget_and_not_of_the_front() -> None:
    def judge(design: Design) -> tuple[list[float], float]:
        if design.features == "stages":
            raise InputError("it shows no stages")
        return [0.5], 0.1

    study = build_front_study("s", None, 0)
    results = list(run_designs(study, ["a"], [32], judge, 10))
    assert 0 < len(results) < len(study.trials) == 10
    assert {one.design.features for one in results} == {"last"}


@pytest.mark.filterwarnings("ignore")
def test_a_larger_picture_takes_longer() -> None:
    def seconds(size: int) -> float:
        spec = BackboneSpec("resnet10_small", size)
        backbone = build_backbone(spec, seed=0)
        torch.manual_seed(0)
        return seconds_per_image(Classifier(spec, backbone, nn.Linear(n_features(backbone, spec), 3)).eval(), size)

    assert 0 < seconds(16) < seconds(160)
