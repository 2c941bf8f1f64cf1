"""Closing table of `main`, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping

import mlflow

from pipelines.inputs.networks import ONNX_ARTIFACT
from pipelines.results.columns import aligned
from pipelines.results.scores import COMPARED, METHODS_ARTIFACT, accuracies
from pipelines.store.artifacts import fetch_artifact
from registry.versions import CHAMPION, champion_of
from tl_core.scoring.episodes import Estimate, estimate, paired_difference


def log_summary(finetune_runs: Mapping[str, str], export_run: str, name: str) -> None:
    """Log and print the accuracies of the finetune runs, their paired differences, and where to look next."""
    mlflow.log_dict(dict(finetune_runs), METHODS_ARTIFACT)
    scores = {method: list(accuracies(run_id).values()) for method, run_id in finetune_runs.items()}
    results = {method: estimate(values) for method, values in scores.items()}
    compared = [(a, b) for a, b in COMPARED if {a, b} <= scores.keys()]
    differences = {f"{a} - {b}": paired_difference(scores[a], scores[b]) for a, b in compared}
    for label, result in {**results, **differences}.items():
        key = label.replace(" + ", "_and_").replace(" - ", "_minus_").replace(" ", "_")
        mlflow.log_metrics({f"summary/{key}": result.mean, f"summary/{key}_ci95": result.ci95})
    text = "\n".join([*_table(results, differences), "", *_where(export_run, name)])
    mlflow.log_text(text, "summary.txt")
    print(f"\n{text}")


def _table(results: Mapping[str, Estimate], differences: Mapping[str, Estimate]) -> list[str]:
    rows = [("method", "accuracy, 95 % interval")]
    rows += [(method, result.percent()) for method, result in results.items()]
    rows += [("", ""), ("difference on the same episodes", "in points, 95 % interval")]
    return aligned(rows + [(label, _points(difference)) for label, difference in differences.items()])


def _points(difference: Estimate) -> str:
    verdict = "not told apart" if difference.low <= 0 <= difference.high else "different"
    return f"{100 * difference.mean:+.2f} +- {100 * difference.ci95:.2f} ({verdict})"


def _where(export_run: str, name: str) -> list[str]:
    champion = champion_of(name)
    standing = f"models:/{name}@{CHAMPION} (version {champion.version})" if champion else "none"
    return [
        f"the classifier   {fetch_artifact(export_run, ONNX_ARTIFACT)}",
        f"champion         {standing}",
        "browse the runs  mlflow ui, then open http://127.0.0.1:5000",
    ]
