"""Closing table of `main`, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping

import mlflow

from pipelines.inputs.artifacts import ONNX_ARTIFACT
from pipelines.reports.words import say_difference, say_over_episodes
from pipelines.results.columns import aligned, wrapped
from pipelines.results.scores import METHODS_ARTIFACT, accuracies, differences_of_methods
from pipelines.store.artifacts import fetch_artifact, short_place
from pipelines.store.logging import ACCURACY_METRICS
from pipelines.store.views import runs_address
from registry.versions import CHALLENGER, CHAMPION, champion_of
from tl_core.scoring.episodes import Estimate, estimate, paired_difference
from tl_core.scoring.paired import PairedDifference


def log_summary(finetune_runs: Mapping[str, str], export_run: str, register_run: str, name: str) -> None:
    """Log and print the accuracies of the finetune runs, their paired differences, and where to look next."""
    mlflow.log_dict(dict(finetune_runs), METHODS_ARTIFACT)
    mlflow.log_metrics(_accuracy_of(list(finetune_runs.values())[-1]))
    scores = {method: list(accuracies(run_id).values()) for method, run_id in finetune_runs.items()}
    results = {method: estimate(values) for method, values in scores.items()}
    over_images = differences_of_methods(finetune_runs)
    differences = {(a, b): paired_difference(scores[a], scores[b]) for a, b in over_images}
    for label, result in {**results, **{f"{a} - {b}": found for (a, b), found in differences.items()}}.items():
        mlflow.log_metrics({_key(label): result.mean, f"{_key(label)}_ci95": result.ci95})
    for (a, b), found in over_images.items():
        key = _key(f"{a} - {b}")
        mlflow.log_metrics({f"{key}_images_low": found.low, f"{key}_images_high": found.high})
    text = "\n".join([*_table(results, differences, over_images), "", *where_lines(export_run, register_run, name)])
    mlflow.log_text(text, "summary.txt")
    print(f"\n{text}")


def _accuracy_of(run_id: str) -> dict[str, float]:
    """Return the accuracy of a finetune run with its intervals: that of the last method is the whole line's."""
    metrics = mlflow.get_run(run_id).data.metrics
    return {name: metrics[name] for name in ACCURACY_METRICS if name in metrics}


def _key(label: str) -> str:
    return "summary/" + label.replace(" + ", "_and_").replace(" - ", "_minus_").replace(" ", "_")


def _table(
    results: Mapping[str, Estimate],
    differences: Mapping[tuple[str, str], Estimate],
    over_images: Mapping[tuple[str, str], PairedDifference],
) -> list[str]:
    rows = [("method", "accuracy, 95 % interval")]
    rows += [(method, result.percent()) for method, result in results.items()]
    rows += [("", ""), ("difference on the same images", "in points, 95 % interval over images")]
    for (a, b), found in over_images.items():
        beside = say_over_episodes(differences[a, b])
        rows.append((f"{a} - {b}", say_difference(found, found.is_significant, beside)))
    return aligned(rows)


def where_lines(export_run: str, register_run: str, name: str) -> list[str]:
    """Say how to sort images with the new classifier, where it lies, and how to browse the runs."""
    address = runs_address(mlflow.get_run(export_run).info.experiment_id)
    return [
        *_version_lines(mlflow.get_run(register_run).data.tags, name),
        "browse the runs  mlflow ui, then open",
        f"  {address}",
        "the classifier",
        f"  {short_place(str(fetch_artifact(export_run, ONNX_ARTIFACT)))}",
    ]


def _version_lines(new: Mapping[str, str], name: str) -> list[str]:
    """Say which version the new classifier is, which one is the champion, and how to sort images with either.

    Args:
        new: tags of the run that registered it.
    """
    champion = champion_of(name)
    mine = _sort_lines(" with the new version", f"models:/{name}/{new['version']}")
    if champion is None:
        waits = f"The new classifier is version {new['version']} and waits as @{CHALLENGER}: {new['gate']}."
        return [*wrapped(waits), "", *mine, "champion         none"]
    is_new = str(champion.version) == new["version"]
    which = "" if is_new else f" with version {champion.version}, the one in use"
    in_use = _sort_lines(which, f"models:/{name}@{CHAMPION}")
    standing = f"champion         models:/{name}@{CHAMPION} (version {champion.version})"
    if is_new:
        return [*in_use, standing]
    waits = (
        f"The new classifier is version {new['version']} and waits as @{CHALLENGER}: {new['gate']}. Version "
        f"{champion.version} stays in use as @{CHAMPION}. Mind that the accuracies of two versions are of different "
        "images, if they were made from different ones; the difference here is on the images that both have."
    )
    return [*wrapped(waits), "", *in_use, *mine, standing]


def _sort_lines(which: str, model: str) -> list[str]:
    return [
        f"sort new images{which}",
        f"  transfer-lab predict --model {model} --images FOLDER --pictures album",
    ]
