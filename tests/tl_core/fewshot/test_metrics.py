"""Metrics of an episode: worked out by hand, or by scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tl_core.fewshot.metrics import METRICS
from tl_core.scoring.classification import score_predictions


def random_answers() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(6)
    logits = torch.randn(24, 4, generator=generator) + torch.nn.functional.one_hot(labels, 4)
    logits[:, 3] = -9  # a class that is never predicted
    return logits, labels


@pytest.mark.parametrize("name", ["accuracy", "macro_precision", "macro_recall", "macro_f1"])
def test_a_metric_is_that_of_scikit_learn(name: str) -> None:
    logits, labels = random_answers()
    scores = score_predictions(labels.numpy(), logits.argmax(1).numpy())
    expected = getattr(scores, name.removeprefix("macro_"))
    assert METRICS[name](logits, labels) == pytest.approx(expected, abs=1e-12)


def test_the_loss_of_equal_logits_is_that_of_guessing() -> None:
    assert METRICS["loss"](torch.zeros(6, 3), torch.arange(3).repeat(2)) == pytest.approx(math.log(3))
