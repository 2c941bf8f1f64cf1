"""Notes on a registered version: its tags, and the facts of its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
from mlflow.entities import Run

from pipelines.configs.entry_points import REPORT_ARTIFACT
from pipelines.inputs.artifacts import LATENCY_METRIC, SIZE_METRIC
from pipelines.registration.evidence import SCORED_ON
from pipelines.results.delivered import read_estimate
from pipelines.results.headline import headline_of
from pipelines.results.predictions import CONFUSIONS_ARTIFACT, read_confusions
from pipelines.results.scores import SCORED_THEMSELVES, accuracy_metrics, accuracy_of
from pipelines.results.trainings import hits_in, predictions_of
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.find import find_run
from pipelines.store.logging import ACCURACY_METRICS
from pipelines.store.params import used_params
from pipelines.store.runs import KIND
from pipelines.store.views import run_link
from registry.card import CardFacts, Confusions, write_card
from registry.versions import NewVersion
from serving.model import OnnxClassifier
from tl_core.errors import InputError
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.recipes.train import TrainRecipe
from tl_core.scoring.classification import count_confusions
from tl_core.scoring.images import wilson

_TAGS = {"mean": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
_SAMPLE_TAG = {"finetune": "episodes", "train": "test_images", "classify": "target_fingerprint"}


def describe_version(name: str, export_run: Run, scored_run: Run, onnx_path: Path) -> NewVersion:
    """Collect what goes into a version, from the runs that made and scored it."""
    facts = _facts(name, export_run, scored_run, onnx_path)
    return NewVersion(onnx_path, partial(write_card, facts), _tags(export_run, scored_run))


def scored_run_of(tags: Mapping[str, str]) -> str:
    """Return the id of the run that scored a registered version, from its tags; empty if they have none."""
    return next((tags[f"{kind}_run"] for kind in SCORED_ON if tags.get(f"{kind}_run")), "")


def _tags(export_run: Run, scored_run: Run) -> dict[str, str]:
    kind = scored_run.data.tags[KIND]
    if kind == "finetune":
        names = {name: name for name in (*ACCURACY_METRICS, "n_episodes")}
    else:
        names = {_TAGS.get(name, name): metric for name, metric in accuracy_metrics(scored_run).items()}
    scores = {tag: scored_run.data.metrics.get(metric) for tag, metric in names.items()}
    export_metrics = export_run.data.metrics
    measured = {name: export_metrics.get(name) for name in ("parity/max_difference", SIZE_METRIC, LATENCY_METRIC)}
    return {
        **{name: f"{value:.6g}" for name, value in {**scores, **measured}.items() if value is not None},
        _SAMPLE_TAG[kind]: scored_run.data.tags[_SAMPLE_TAG[kind]],
        "target_fingerprint": scored_run.data.tags.get("target_fingerprint", ""),
        **{f"{step}_run": run_id for step, run_id in _lineage(export_run, scored_run).items()},
    }


def _lineage(export_run: Run, scored_run: Run) -> dict[str, str]:
    """Run ids by the step that they are of."""
    scored = {scored_run.data.tags[KIND]: scored_run.info.run_id}
    fit = {} if scored.keys() <= set(SCORED_THEMSELVES) else {"fit": used_params(export_run)["run"]}
    return {**fit, **scored, "export": export_run.info.run_id}


def _links(export_run: Run, scored_run: Run) -> dict[str, str]:
    """Addresses of the evidence in MLflow's pages: the report, the scores, and the runs that made the file."""
    runs = _lineage(export_run, scored_run)
    links = {
        "report": run_link(scored_run, REPORT_ARTIFACT),
        f"scores ({scored_run.data.tags[KIND]})": run_link(scored_run),
    }
    if "fit" in runs:
        links["fit"] = run_link(find_run(runs["fit"], "fit"))
    return links | {"export": run_link(export_run)}


def _facts(name: str, export_run: Run, scored_run: Run, onnx_path: Path) -> CardFacts:
    model = OnnxClassifier.load(onnx_path)
    kind = scored_run.data.tags[KIND]
    return CardFacts(
        name=name,
        headline=headline_of(scored_run) or f"Accuracy {_accuracy(scored_run)}",
        links=_links(export_run, scored_run),
        accuracy=_accuracy(scored_run),
        scored_on=SCORED_ON[kind],
        sample=_sample(scored_run),
        recipe=_recipe(scored_run),
        file=model.metadata,
        runs=_lineage(export_run, scored_run),
        class_names=model.class_names,
        confusions=_confusions_of_images(scored_run, model) if kind == "train" else _kept_confusions(scored_run),
    )


def _accuracy(scored_run: Run) -> str:
    run_id, kind = scored_run.info.run_id, scored_run.data.tags[KIND]
    try:
        if kind == "classify":
            return read_estimate(run_id).headline.percent()
        if kind == "train":
            return wilson(hits_in(predictions_of(run_id))).percent()
        return accuracy_of(run_id).percent()
    except (InputError, KeyError, OSError, ValueError):  # as in `load_evidence`: the gate refuses
        return "not readable"


def _sample(scored_run: Run) -> str:
    params, kind = used_params(scored_run), scored_run.data.tags[KIND]
    if kind == "classify":
        shares = "every class as frequent" if params["priors"] == "balanced" else "classes as frequent as there"
        return f"{params['data']}, {shares}"
    if kind == "train":
        return f"the test images of {params['data']}"
    shape = json.loads(scored_run.data.tags["episodes"])  # a parameter of 0 has left it to the images
    return f"{shape['n_way']}-way {shape['n_shot']}-shot episodes of {params['target']}"


def _recipe(scored_run: Run) -> dict[str, str]:
    params, kind = used_params(scored_run), scored_run.data.tags[KIND]
    if kind == "classify":
        metrics = {name: f"{scored_run.data.metrics[name]:.3g}" for name in ("l2", "temperature")}
        return {"head": "linear", "features": params["features"], "priors": params["priors"], **metrics}
    if kind == "train":
        return {field.name: params[field.name] for field in fields(TrainRecipe) if field.name in params}
    return {field.name: _rounded(params[field.name]) for field in fields(FinetuneRecipe) if field.name in params}


def _rounded(value: str) -> str:
    """To three digits, if it is a number: a searched learning rate has seventeen."""
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value


def _kept_confusions(scored_run: Run) -> Confusions | None:
    try:
        found = json.loads(fetch_artifact(scored_run.info.run_id, CONFUSIONS_ARTIFACT).read_text())
    except InputError:  # a run of an earlier version
        return None
    return Confusions(found["class_names"], read_confusions(found).tolist())


def _confusions_of_images(train_run: Run, model: OnnxClassifier) -> Confusions | None:
    number = {name: label for label, name in enumerate(model.class_names)}
    try:
        table = predictions_of(train_run.info.run_id)
        labels, answers = (
            np.array([number[name] for name in table[column]], dtype=np.int64) for column in ("label", "prediction")
        )
        confusions = count_confusions(labels, answers)
    except (InputError, KeyError, OSError, ValueError):  # as in `load_evidence`: the gate refuses, the card is silent
        return None
    return Confusions(model.class_names, confusions.tolist())
