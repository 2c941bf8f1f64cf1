"""The scores of a finetune run, as what the gate, the card and the tables compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from mlflow.entities import Run

from pipelines.episode_log import CONFUSIONS_ARTIFACT, EPISODES_ARTIFACT
from pipelines.export import LATENCY_METRIC, SIZE_METRIC
from pipelines.tracking import fetch_artifact, find_comparable_runs, find_run
from registry.card import CardFacts, Confusions, write_card
from registry.gate import Evidence, Measured
from serving.model import OnnxClassifier
from tl_core.errors import InputError
from tl_core.export import Parity
from tl_core.scoring import Estimate, estimate


def load_evidence(finetune_run: str) -> Evidence | None:
    """The scores of a finetune run, or None if they cannot be read."""
    try:
        run = find_run(finetune_run, "finetune")
        return Evidence(run.data.tags["episodes"], accuracies(finetune_run))
    except (InputError, KeyError, OSError, ValueError):  # the last: pyarrow's, of a damaged table
        return None


def accuracies(finetune_run: str) -> dict[int, float]:
    """Accuracy by episode number."""
    table = pd.read_parquet(fetch_artifact(finetune_run, EPISODES_ARTIFACT))
    return {int(e): float(a) for e, a in zip(table["episode"], table["accuracy"], strict=True)}


def paired_accuracies(finetune_runs: Sequence[str]) -> dict[str, list[float]]:
    """Accuracies of several finetune runs on the episodes that all of them scored, in one order, by readable name.

    Raises:
        InputError: fewer than two runs, the same run twice, or runs whose episodes are not the same.
    """
    advice = "give the same target, part, seed and episode shape to both"
    runs = find_comparable_runs(finetune_runs, "finetune", "episodes", "episodes", advice)
    tables = [accuracies(run.info.run_id) for run in runs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    names = [_readable(run) for run in runs]
    return {name: [table[e] for e in shared] for name, table in zip(names, tables, strict=True)}


def _readable(run: Run) -> str:
    apart = "" if run.data.tags.get("transductive", "none") == "none" else ", transductive"
    return f"{run.data.tags['network'][:12]} ({run.info.run_id[:8]}{apart})"


def accuracy_of(finetune_run: str) -> Estimate:
    """Mean accuracy of a finetune run with its interval."""
    return estimate(list(accuracies(finetune_run).values()))


def measured_of(export_run: Run) -> Measured:
    """What an export run found out about its file."""
    metrics = export_run.data.metrics
    holds = None
    if {"parity/max_difference", "parity/equal_argmax", "parity/n_images"} <= metrics.keys():
        parity = Parity(metrics["parity/max_difference"], metrics["parity/equal_argmax"], 1)
        holds = parity.holds and metrics["parity/n_images"] > 0
    return Measured(holds, metrics.get(SIZE_METRIC), metrics.get(LATENCY_METRIC))


def evidence_tags(export_run: Run, finetune_run: Run) -> dict[str, str]:
    """What a registered version carries as tags: its scores, its size and speed, and the runs that it came from."""
    scores = {name: finetune_run.data.metrics.get(name) for name in ("accuracy", "accuracy_ci95", "n_episodes")}
    export_metrics = export_run.data.metrics
    measured = {name: export_metrics.get(name) for name in ("parity/max_difference", SIZE_METRIC, LATENCY_METRIC)}
    return {
        **{name: f"{value:.6g}" for name, value in {**scores, **measured}.items() if value is not None},
        "episodes": finetune_run.data.tags["episodes"],
        "finetune_run": finetune_run.info.run_id,
        "export_run": export_run.info.run_id,
        "fit_run": export_run.data.params["fit_run"],
        "target_fingerprint": finetune_run.data.tags.get("target_fingerprint", ""),
    }


def write_version_card(name: str, finetune_run: Run, onnx_path: Path) -> str:
    """The model card of a version that is to be registered."""
    params, model = finetune_run.data.params, OnnxClassifier.load(onnx_path)
    evidence = load_evidence(finetune_run.info.run_id)
    facts = CardFacts(
        name=name,
        accuracy=estimate(list(evidence.accuracies.values())).percent() if evidence else "not readable",
        task=f"{params['n_way']}-way {params['n_shot']}-shot episodes of {params['target']}",
        recipe={key.removeprefix("recipe."): value for key, value in params.items() if key.startswith("recipe.")},
        file={**model.metadata, "finetune_run": finetune_run.info.run_id},
        class_names=model.class_names,
        confusions=_confusions_of(finetune_run.info.run_id),
    )
    return write_card(facts)


def _confusions_of(finetune_run: str) -> Confusions | None:
    try:
        fields = json.loads(fetch_artifact(finetune_run, CONFUSIONS_ARTIFACT).read_text())
    except InputError:  # a run of an earlier version
        return None
    return Confusions(fields["class_names"], fields["counts"])
