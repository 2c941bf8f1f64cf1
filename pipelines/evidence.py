"""The scores of a finetune run, as what the gate and the card go by."""

from __future__ import annotations

import json
from pathlib import Path

from mlflow.entities import Run

from pipelines.answers import CONFUSIONS_ARTIFACT
from pipelines.export import LATENCY_METRIC, SIZE_METRIC
from pipelines.scores import accuracies
from pipelines.tracking import fetch_artifact, find_run
from registry.card import CardFacts, Confusions, write_card
from registry.gate import Evidence, Measured
from serving.model import OnnxClassifier
from tl_core.errors import InputError
from tl_core.export import Parity
from tl_core.scoring import estimate


def load_evidence(finetune_run: str) -> Evidence | None:
    """The scores of a finetune run, or None if they cannot be read."""
    try:
        run = find_run(finetune_run, "finetune")
        return Evidence(run.data.tags["episodes"], accuracies(finetune_run))
    except (InputError, KeyError, OSError, ValueError):  # the last: pyarrow's, of a damaged table
        return None


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
