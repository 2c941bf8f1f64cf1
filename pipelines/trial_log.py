"""Trials in MLflow: one nested run each, and on the parent what the study found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict

import mlflow
import optuna
import pandas as pd

from pipelines.child_runs import ChildRuns, FinishedRun
from pipelines.networks import RECIPE_ARTIFACT
from pipelines.tracking import STORE
from tl_core.recipes import FinetuneRecipe
from tl_core.scoring import estimate
from tl_core.search import Finalist, TrialResult, Verdict, crown


def study_storage() -> str:
    """Where studies live: $OPTUNA_STORAGE, else a SQLite file of their own beside the tracking store."""
    return os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{STORE / 'studies.db'}"


class TrialLog:
    """Records the trials of a study under the active run."""

    def __init__(self, study: optuna.Study) -> None:
        self._runs = ChildRuns("trial")
        self._study = study
        self._spent = 0
        self._n_trials = 0

    def add(self, trial: TrialResult) -> None:
        """Record one trial as a nested run."""
        self._spent += len(trial.scores)
        self._n_trials += 1
        stored = self._study.trials[trial.number]
        assert stored.datetime_start is not None
        assert stored.datetime_complete is not None
        # A stopped or diverged trial is an orderly end: FAILED is kept for what nobody expected.
        self._runs.add(
            FinishedRun(
                f"trial-{trial.number:04d}",
                stored.datetime_start.timestamp(),
                stored.datetime_complete.timestamp(),
                _trial_metrics(trial),
                {"state": trial.state, "error": trial.reason},
                asdict(trial.recipe),
            )
        )

    def close(self, finalists: Sequence[Finalist], base: FinetuneRecipe) -> Verdict:
        """Log who wins among the finalists, what that is worth, the cost and the plots; returns the verdict."""
        self._runs.close()
        verdict = crown(finalists, base)
        accuracy = estimate(verdict.winner.scores)
        mlflow.log_dict(asdict(verdict.winner.recipe), RECIPE_ARTIFACT)
        mlflow.log_text(_finalists_table(finalists), "finalists.csv")
        self._spent += sum(len(finalist.scores) for finalist in finalists)
        metrics = {
            "accuracy": accuracy.mean,
            "search_accuracy": verdict.best.search_accuracy,
            "optimism": verdict.optimism,
            "n_trials": self._n_trials,
            "episodes_spent": self._spent,
        }
        if accuracy.n > 1:
            metrics["accuracy_ci95"] = accuracy.ci95
        if verdict.gain is not None:
            metrics |= {"gain": verdict.gain.mean, "gain_ci95": verdict.gain.ci95}
        mlflow.log_metrics(metrics)
        mlflow.set_tag("verdict", verdict.sentence())
        self._log_plots()
        return verdict

    def _log_plots(self) -> None:
        plots = optuna.visualization
        mlflow.log_figure(plots.plot_optimization_history(self._study), "plots/history.html")
        mlflow.log_figure(plots.plot_slice(self._study), "plots/slice.html")
        mlflow.log_figure(plots.plot_parallel_coordinate(self._study), "plots/parallel_coordinates.html")


def _finalists_table(finalists: Sequence[Finalist]) -> str:
    rows = [
        {**asdict(f.recipe), "search_accuracy": f.search_accuracy, "accuracy": estimate(f.scores).mean}
        for f in finalists
    ]
    return str(pd.DataFrame(rows).to_csv(index=False))


def _trial_metrics(trial: TrialResult) -> dict[str, float]:
    metrics: dict[str, float] = {"n_episodes": len(trial.scores)}
    if trial.scores:
        result = estimate(trial.scores)
        metrics["accuracy"] = result.mean
        if result.n > 1:
            metrics["accuracy_ci95"] = result.ci95
    return metrics
