"""Trials in MLflow: one nested run each, and on the parent what the study found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import mlflow
import optuna
import pandas as pd
from optuna.trial import TrialState
from plotly.graph_objects import Figure

from pipelines.inputs.artifacts import RECIPE_ARTIFACT
from pipelines.results.figures import draw_episodes_spent
from pipelines.store.child_runs import ChildRuns, FinishedRun
from pipelines.store.logging import log_drawing, log_plots
from tl_core.scoring.episodes import estimate, independent_difference
from tl_core.search.objective import TrialResult
from tl_core.search.trials import count_episodes, count_trials
from tl_core.search.verdict import Finalist, Verdict

MIN_FOR_IMPORTANCES = 4


class TrialLog:
    """Records the trials of a study under the active run."""

    def __init__(self, study: optuna.Study, n_episodes: int) -> None:
        self._runs = ChildRuns("trial")
        self._study = study
        self._n_episodes = n_episodes
        self._n_trials = 0
        self.n_before = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))

    def add(self, trial: TrialResult) -> None:
        """Record one trial as a nested run."""
        self._n_trials += 1
        # A stopped or failed trial is an orderly end: FAILED is kept for what nobody expected.
        self._runs.add(
            FinishedRun(
                f"trial-{trial.number:04d}",
                trial.start,
                trial.end,
                _trial_metrics(trial),
                {
                    "state": trial.state,
                    "error": trial.reason,
                    "copy_of": "" if trial.copy_of is None else str(trial.copy_of),
                },
                asdict(trial.recipe),
            )
        )

    def close(self, finalists: Sequence[Finalist], verdict: Verdict, reported: Verdict | None) -> None:
        """Log who wins among the finalists, what that is worth on either half, the cost and the plots."""
        self._runs.close()
        mlflow.log_dict(asdict(verdict.winner.recipe), RECIPE_ARTIFACT)
        mlflow.log_text(_finalists_table(finalists), "finalists.csv")
        spent, n_trials = count_episodes(self._study), count_trials(self._study)
        accuracy = estimate(verdict.winner.scores)
        metrics = {
            "accuracy": accuracy.mean,
            "accuracy_ci95": accuracy.ci95,
            "search_accuracy": verdict.best.search_accuracy,
            **_gain_metrics(verdict, "gain"),
            "n_trials": n_trials,
            "n_trials_elsewhere": n_trials - self._n_trials,
            "episodes_spent": spent + sum(len(finalist.scores) for finalist in finalists),
            "episodes_saved": len(self._study.trials) * self._n_episodes - spent,
        }
        metrics |= _promise(verdict.best.search_scores, verdict.best.scores, "optimism")
        if reported is not None:
            metrics |= _report_metrics(reported, verdict)
        mlflow.log_metrics(metrics)
        self._log_plots()

    def _log_plots(self) -> None:
        plots = optuna.visualization
        figures: dict[str, Callable[[optuna.Study], Figure]] = {
            "History": plots.plot_optimization_history,
            "Slices": plots.plot_slice,
            "Parallel coordinates": plots.plot_parallel_coordinate,
        }
        values = [t.value for t in self._study.trials if t.state == TrialState.COMPLETE]
        if len(values) >= MIN_FOR_IMPORTANCES and len(set(values)) > 1:
            figures["Importances"] = plots.plot_param_importances
        log_plots({title: partial(draw, self._study) for title, draw in figures.items()}, "plots/study.html")
        trials = {t.number: len(t.intermediate_values) for t in self._study.trials if t.state.is_finished()}
        log_drawing(partial(draw_episodes_spent, trials, self._n_episodes), "plots/episodes.png")


def _report_metrics(reported: Verdict, verdict: Verdict) -> dict[str, float]:
    """On the other half: accuracy of the winner, gain of the best over the base, and what of its promise was kept."""
    best = reported.best
    winner = best if verdict.winner is verdict.best else reported.base
    accuracy = estimate(winner.scores)
    return {
        "report_accuracy": accuracy.mean,
        "report_accuracy_ci95": accuracy.ci95,
        **_gain_metrics(reported, "report_gain"),
        **_promise(best.search_scores, best.scores, "report_optimism"),
    }


def _gain_metrics(verdict: Verdict, name: str) -> dict[str, float]:
    """Gain over the base recipe, with its intervals over episodes and over images."""
    gain, on_images = verdict.gain, verdict.gain_on_images
    over_images = {f"{name}_images_low": on_images.low, f"{name}_images_high": on_images.high}
    return {name: gain.mean, f"{name}_ci95": gain.ci95} | over_images


def _promise(promised: Sequence[float], kept: Sequence[float], name: str) -> dict[str, float]:
    """By how much the scores that chose a recipe exceed others; nothing if it was not chosen by any."""
    if len(promised) < 2:
        return {}
    difference = independent_difference(promised, kept)
    return {name: difference.mean, f"{name}_ci95": difference.ci95}


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
