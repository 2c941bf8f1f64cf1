"""Export of a classifier to one .onnx file, checked against torch.

    mlflow run . -e export -P run=<fit run> -P finetune_run=<finetune run that scored it>

Writes the classifier as one self-describing .onnx file, and compares it, from image files to probabilities, with torch
at several batch sizes; a file that disagrees is not kept. With `int8`, a smaller, faster variant is written beside it.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line

if TYPE_CHECKING:
    import numpy as np
    from mlflow.entities import Run
    from numpy.typing import NDArray

    from serving.model import OnnxClassifier
    from tl_core.heads.classifier import Classifier, ClassifierDescription

INT8_LEAST_AGREEMENT = 0.99
_TIMED_CALLS = 20


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export to one ONNX file, with a parity check."""

    run: str
    """Fit, train or classify run whose classifier is exported."""
    finetune_run: str = ""
    """Finetune run that scored this classifier; its accuracy is then written into the file."""
    int8: bool = False
    """Write a variant in 8-bit integers too, calibrated on images of the fit run."""


def run(config: ExportConfig) -> str:
    """Export, check and log; returns the run's id, whose artifact `onnx/classifier.onnx` is the product."""
    import mlflow

    from pipelines.configs.fields import flat_params
    from pipelines.inputs.artifacts import CLASSIFIER_ARTIFACT, ONNX_ARTIFACT, SIZE_METRIC
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.store.artifacts import fetch_artifact
    from pipelines.store.find import find_run
    from pipelines.store.params import log_params
    from pipelines.store.runs import rename_run, tracked_run
    from tl_core.export.onnx_file import export_onnx
    from tl_core.heads.storage import load_classifier

    with tracked_run("export", config) as run_id, tempfile.TemporaryDirectory() as folder:
        fit_run = find_run(config.run, "fit", "train", "classify")
        config = replace(config, run=fit_run.info.run_id)
        config = with_run_ids(config, finetune_run="finetune")
        log_params(flat_params(config))
        rename_run("export", f"export of {fit_run.info.run_name}")
        score = _score(config.finetune_run, fit_run)
        classifier, description = load_classifier(fetch_artifact(config.run, CLASSIFIER_ARTIFACT))
        started = time.perf_counter()
        path = Path(folder, ONNX_ARTIFACT)
        metadata = {**_metadata(description, fit_run), **score, "export_run": run_id}
        export_onnx(classifier, description.backbone.image_size, metadata, path)
        mlflow.log_metrics({"export_seconds": time.perf_counter() - started, SIZE_METRIC: path.stat().st_size / 1e6})
        images = _check(classifier, path, config.run)
        if config.int8:
            _add_int8(path, images)
        mlflow.log_artifacts(str(path.parent), path.parent.name)
        print(f"export {run_id}: {path.stat().st_size / 1e6:.1f} MB, answers as torch does")
    return run_id


def _metadata(description: ClassifierDescription, fit_run: Run) -> dict[str, str]:
    from pipelines.configs.entry_points import project_version
    from pipelines.inputs.artifacts import CHOSEN_WEIGHTS
    from pipelines.store.params import used_params
    from tl_core.images.decoding import PREPROCESS_VERSION
    from tl_core.networks.weights_spec import credit_of

    tags = fit_run.data.tags
    weights = tags.get(CHOSEN_WEIGHTS) or used_params(fit_run)["weights"]
    return {
        "class_names": json.dumps(description.class_names),
        "image_size": str(description.backbone.image_size),
        "resize_rule": "crop",
        "preprocess_version": str(PREPROCESS_VERSION),
        "backbone": description.backbone.architecture,
        "temperature": str(description.temperature),
        **({} if description.unlike_below is None else {"unlike_below": str(description.unlike_below)}),
        **_recommendation(fit_run),
        "weights": weights,
        **({"weights_credit": credit} if (credit := credit_of(weights)) else {}),
        "fit_run": fit_run.info.run_id,
        "source_fingerprint": _source_fingerprint(weights),
        "target_fingerprint": tags.get("target_fingerprint", ""),
        **_learned_from(fit_run),
        "version": project_version(),
    }


def _recommendation(fit_run: Run) -> dict[str, str]:
    """Return the probability from which on the wanted share of predictions is right, where a classify run found one."""
    bar = fit_run.data.metrics.get("believe_from")
    if bar is None:
        return {}
    return {"believe_from": f"{bar:g}", "wanted_precision": f"{fit_run.data.metrics['wanted_precision']:g}"}


def _learned_from(fit_run: Run) -> dict[str, str]:
    """Return which files the classifier was fitted to, so that nobody takes its accuracy on them for one."""
    from pipelines.inputs.artifacts import LEARNED_ARTIFACT
    from pipelines.store.artifacts import fetch_artifact
    from tl_core.errors import InputError

    try:
        return {"learned_from": fetch_artifact(fit_run.info.run_id, LEARNED_ARTIFACT).read_text()}
    except InputError:  # a run of an earlier version
        return {}


def _source_fingerprint(weights: str) -> str:
    from pipelines.inputs.names import is_run
    from pipelines.store.find import find_run

    if not is_run(weights):
        return ""
    return find_run(weights, "pretrain").data.tags.get("source_fingerprint", "")


def _score(finetune_run: str, fit_run: Run) -> dict[str, str]:
    """Return the accuracy that is written into the file: that of its recipe, measured on episodes."""
    from pipelines.inputs.provenance import check_same_origin
    from pipelines.results.scores import SCORED_THEMSELVES, accuracy_metrics, accuracy_of
    from pipelines.store.find import find_run
    from pipelines.store.runs import KIND

    metrics, kind = fit_run.data.metrics, fit_run.data.tags[KIND]
    if not finetune_run and kind in SCORED_THEMSELVES:
        return {"accuracy": json.dumps({key: metrics[name] for key, name in accuracy_metrics(fit_run).items()})}
    if not finetune_run:
        return {"accuracy": "not measured"}
    scored = find_run(finetune_run, "finetune")
    check_same_origin(scored, fit_run)
    accuracy = accuracy_of(finetune_run)
    numbers = {"mean": accuracy.mean, "ci95": accuracy.ci95, "n_episodes": accuracy.n}
    return {"accuracy": json.dumps(numbers), "episodes": scored.data.tags["episodes"], "finetune_run": finetune_run}


def _check(classifier: Classifier, path: Path, fit_run: str) -> NDArray[np.uint8]:
    """Compare the file with torch, from image files to probabilities, and log it; returns the images.

    Raises:
        InputError: they disagree; names the worst image.
    """
    import mlflow
    import numpy as np

    from pipelines.inputs.artifacts import LATENCY_METRIC, SAMPLE_FILES_ARTIFACT, SAMPLES_ARTIFACT
    from pipelines.store.artifacts import fetch_artifact
    from serving.model import OnnxClassifier
    from serving.sources import open_source
    from tl_core.errors import InputError
    from tl_core.export.onnx_file import check_parity
    from tl_core.images.decoding import decode_image

    with np.load(fetch_artifact(fit_run, SAMPLES_ARTIFACT), allow_pickle=False) as samples:
        images: NDArray[np.uint8] = samples["images"]
    model = OnnxClassifier.load(path)
    with open_source(str(fetch_artifact(fit_run, SAMPLE_FILES_ARTIFACT))) as source:
        files = list(source.files())
        served = np.stack([decode_image(file.read(), model.image_size, model.resize_rule) for file in files])
        seconds = [_answer_seconds(model, file.read()) for file in (files * _TIMED_CALLS)[:_TIMED_CALLS]]
    parity = check_parity(classifier, path, images, served=served)
    mlflow.log_metrics(
        {
            "parity/max_difference": parity.max_difference,
            "parity/equal_argmax": parity.equal_argmax,
            "parity/n_images": parity.n_images,
            "parity/similarity_difference": parity.similarity_difference,
            LATENCY_METRIC: 1000 * float(np.median(seconds)),
        }
    )
    if not parity.holds:
        raise InputError(
            f"the exported file does not answer as torch does and was not kept: probabilities differ by up to "
            f"{parity.max_difference:.1e}, similarities by up to {parity.similarity_difference:.1e}, "
            f"{parity.equal_argmax:.1%} of the classes are equal, "
            f"the worst image is {files[parity.worst].name}"
        )
    return images


def _answer_seconds(model: OnnxClassifier, content: bytes) -> float:
    from tl_core.images.decoding import decode_image

    started = time.perf_counter()
    model.predict(decode_image(content, model.image_size, model.resize_rule)[None])
    return time.perf_counter() - started


def _add_int8(path: Path, images: NDArray[np.uint8]) -> None:
    import mlflow

    from pipelines.inputs.artifacts import INT8_ARTIFACT
    from tl_core.export.int8 import equal_answers, quantise_onnx

    target = path.with_name(Path(INT8_ARTIFACT).name)
    quantise_onnx(path, images[::2], target)
    agreement = equal_answers(path, target, images[1::2])  # on others than those it was calibrated on
    mlflow.log_metrics({"int8/equal_argmax": agreement, "int8/megabytes": target.stat().st_size / 1e6})
    if agreement < INT8_LEAST_AGREEMENT:
        target.unlink()
        refusal = (
            f"gives another class for {1 - agreement:.1%} of the images; allowed is {1 - INT8_LEAST_AGREEMENT:.0%}"
        )
        mlflow.set_tag("int8", f"not kept: {refusal}")
        print(f"the int8 variant was not kept: it {refusal}")


if __name__ == "__main__":
    run_command_line(ExportConfig, run)
