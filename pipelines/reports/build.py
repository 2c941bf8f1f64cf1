"""The report of a run: the answer in plain words, then what it rests on, for every kind of run that has one."""

from __future__ import annotations

from importlib import import_module

from mlflow.entities import Run

from pipelines.reports.page import Page
from pipelines.store.runs import KIND

KINDS = ("main", "classify", "finetune", "search", "compare", "train", "score", "pretrain", "prepare")
"""Kinds of runs that have a report."""


def build_report(run: Run) -> Page:
    """The report of a run, from its records.

    Raises:
        InputError: the run lacks records that a report needs.
    """
    kind = run.data.tags[KIND]
    if kind not in KINDS:
        raise KeyError(kind)
    # Not all at the top: `prepare` would wait seconds for libraries of charts and statistics that it does not need.
    page: Page = import_module(f"pipelines.reports.kinds.{kind}").report(run)
    return page
