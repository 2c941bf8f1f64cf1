"""From one's own images to one file, with an estimate of how good that file is on new images.

    mlflow run . -e classify -P data=my_folder -P name=my_model
    mlflow run . -e classify -P data=photos.csv -P weights=embedded,my_weights.safetensors -P backbone=resnet34

Chooses among frozen networks and penalties of the head, fits the head to all images, exports and registers it. The
estimate is a repeated cross-validation in which every fold runs the whole procedure, choice and temperature included;
images that show the same stay in one fold. Every fold is a nested run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pipelines import export, register
from pipelines.command_line.command import run_command_line
from pipelines.configs.data import OwnData
from pipelines.configs.fields import flat_params, with_values
from pipelines.configs.network import ComparedNetworks
from pipelines.configs.where import Where
from tl_core.recipes.checks import check_choice, check_range, check_seed
from tl_core.recipes.choices import Priors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipelines.command_line.steps import Steps
    from pipelines.inputs.own_images import NetworkOnImages, OwnImages
    from pipelines.results.delivered import DeliveredEstimate
    from tl_core.crossvalidation.folds import Folds
    from tl_core.crossvalidation.procedure import LabelledFeatures, Procedure
    from tl_core.networks.backbones import BackboneSpec

PENALTIES = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""Penalties of the head that are tried; the more images, the smaller is the best one."""

_STAGES = {
    "images": "reading the images",
    "features": "features of all images by each network",
    "folds": "cross-validation, the whole procedure in every fold",
    "records": "records and figures",
    "export": "one file, checked and registered",
}
"""Steps by the name of their metric, in the order of the work."""


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """From one's own images to one file, with an estimate of how good it is."""

    data: OwnData = field(default_factory=OwnData)
    network: ComparedNetworks = field(default_factory=ComparedNetworks)
    priors: Priors = "balanced"
    """What counts: every class the same (balanced), or each as often as it is among the images (data)."""
    wanted_precision: float = 0.95
    """Share of right predictions that is wanted; the probability from which on it is reached goes into the file."""
    name: str = "my-classifier"
    """Name of the registered model."""
    seed: int = 0
    """Seed of the folds, and the weights of an untrained network."""
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_choice("priors", self.priors, get_args(Priors))
        check_range("wanted_precision", self.wanted_precision, 0.01, 0.999)


def run(config: ClassifyConfig) -> str:
    """Estimate, fit, export and register; returns the run's id."""
    import numpy as np

    from pipelines.command_line.steps import Steps, seconds_of_stages
    from pipelines.inputs.names import run_name
    from pipelines.inputs.own_images import open_own_images
    from pipelines.reports.log import log_report
    from pipelines.results.delivered import log_estimate, log_suspects
    from pipelines.results.drift import log_learned_features
    from pipelines.results.nearest import Neighbours
    from pipelines.results.network_scores import score_networks
    from pipelines.store.logging import log_dataset
    from pipelines.store.params import log_given, log_params
    from pipelines.store.runs import tracked_run
    from tl_core.compute.devices import pick_device
    from tl_core.scoring.suspects import find_suspects

    with tracked_run("classify", config, run_name("classify", config.data.data)) as run_id:
        steps = Steps(len(_STAGES), seconds_of_stages("classify", [*_STAGES], data=config.data.data))
        with _timed("images", steps):
            images = open_own_images(config.data, config.network, config.seed)
            log_dataset(images.dataset, "target")
        for sentence in images.notices:
            print(f"warning: {sentence}", file=sys.stderr)
        device = pick_device(config.where.device)
        with _timed("features", steps):
            matrices, milliseconds = _features(images, device)
        with _timed("folds", steps):
            data, folds, procedure = _cross_validate(config, images, matrices)
        name = procedure.classifier.candidate.features
        chosen = images.networks[name]
        log_given({name: getattr(config.network, name) for name in ("backbone", "image_size", "features")})
        log_params(_used(config, images, chosen.spec, device.type))
        networks = score_networks(procedure, config.priors, images.groups, milliseconds)
        estimate = replace(_estimate(config, images, data, folds, procedure), networks=networks)
        with _timed("records", steps):
            rows = np.arange(len(chosen.dataset.labels))
            neighbours = Neighbours(chosen.dataset, rows, matrices[name].numpy())
            log_estimate(estimate, chosen.dataset, procedure, images.groups, neighbours)
            log_suspects(find_suspects(procedure.out_of_fold), chosen.dataset, neighbours)
            _log_folds(procedure, folds)
            log_learned_features(matrices[name].numpy(), chosen.dataset, images.groups.of_image)
            _log_classifier(chosen, matrices[name], folds, procedure, config.seed)
        with _timed("export", steps):
            export_run = export.run(export.ExportConfig(run=run_id))
            register_run = register.run(register.RegisterConfig(run=export_run, name=config.name))
        log_report(run_id)
        _conclude(estimate, export_run, register_run, config.name)
    return run_id


def _features(images: OwnImages, device: torch.device) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Compute the features of all images by every network, and the milliseconds that each took for an image."""
    matrices, milliseconds = {}, {}
    for name, network in images.networks.items():
        started = time.perf_counter()
        matrices[name] = network.features(device)
        milliseconds[name] = 1000 * (time.perf_counter() - started) / len(matrices[name])
    return matrices, milliseconds


@contextmanager
def _timed(stage: str, steps: Steps) -> Iterator[None]:
    """Say that a stage begins, and log its seconds with the active run."""
    import mlflow

    steps.begin(_STAGES[stage])
    started = time.perf_counter()
    yield
    mlflow.log_metric(f"seconds/{stage}", time.perf_counter() - started)


def _used(config: ClassifyConfig, images: OwnImages, spec: BackboneSpec, device: str) -> dict[str, object]:
    """Return the params with the values that were settled."""
    weights = dict.fromkeys(network.weights for network in images.networks.values())
    used = {"weights": ",".join(weights), "backbone": spec.architecture, "image_size": spec.image_size}
    return flat_params(with_values(config, **used, features=spec.features, device=device))


def _cross_validate(
    config: ClassifyConfig, images: OwnImages, matrices: Mapping[str, Tensor]
) -> tuple[LabelledFeatures, Folds, Procedure]:
    from tl_core.crossvalidation.folds import assign_folds, plan_folds
    from tl_core.crossvalidation.procedure import Candidate, LabelledFeatures, run_procedure

    labels, n_classes = images.dataset.labels, len(images.dataset.class_names)
    max_folds, n_repeats = plan_folds(len(labels), n_classes)
    folds = assign_folds(labels, images.groups, n_repeats, config.seed, max_folds)
    data = LabelledFeatures.of(matrices, labels, n_classes)
    candidates = [Candidate(name, l2) for name in matrices for l2 in PENALTIES]
    return data, folds, run_procedure(data, candidates, folds, config.priors)


def _estimate(
    config: ClassifyConfig, images: OwnImages, data: LabelledFeatures, folds: Folds, procedure: Procedure
) -> DeliveredEstimate:
    from pipelines.results.delivered import DeliveredEstimate, list_candidates
    from tl_core.crossvalidation.learning_curve import draw_learning_curve
    from tl_core.scoring.delivered import score_delivered
    from tl_core.scoring.selective import recommend_bar, when_to_believe

    classifier, out_of_fold, groups = procedure.classifier, procedure.out_of_fold, images.groups
    return DeliveredEstimate(
        class_names=images.dataset.class_names,
        counts=tuple(images.dataset.class_counts().values()),
        priors=config.priors,
        scores=score_delivered(out_of_fold, groups.of_image),
        believed=when_to_believe(out_of_fold, groups.of_image),
        wanted_precision=config.wanted_precision,
        bar=recommend_bar(out_of_fold, config.wanted_precision, groups.of_image),
        curve=draw_learning_curve(data, classifier.candidate, folds, config.priors, config.seed),
        candidates=list_candidates(procedure.candidates, classifier.log_losses),
        chosen=classifier.choice.candidate,
        n_folds=folds.n_folds,
        n_repeats=folds.n_repeats,
        n_groups=groups.n_groups,
        notice=images.notices,
    )


def _log_folds(procedure: Procedure, folds: Folds) -> None:
    """Log one nested run per fold."""
    from pipelines.results.delivered import fold_metrics
    from pipelines.store.child_runs import ChildRuns, FinishedRun

    runs, now = ChildRuns("fold"), time.time()
    for name, metrics in fold_metrics(procedure, folds).items():
        candidate = procedure.candidates[int(metrics.pop("candidate"))]
        params = {"weights": candidate.features, "l2": candidate.l2}
        runs.add(FinishedRun(name, now, now, metrics, {}, params))
    runs.close()


def _log_classifier(chosen: NetworkOnImages, features: Tensor, folds: Folds, procedure: Procedure, seed: int) -> None:
    import mlflow
    import numpy as np
    import torch

    from pipelines.inputs.artifacts import CHOSEN_WEIGHTS
    from pipelines.inputs.provenance import log_normalisation
    from pipelines.results.classifiers import save_for_export
    from tl_core.heads.classifier import Classifier, ClassifierDescription
    from tl_core.heads.linear import LinearHead
    from tl_core.scoring.unlike import know_classes

    final, dataset = procedure.classifier, chosen.dataset
    head = LinearHead(final.weight.shape[1], len(final.bias))
    head.load_state_dict({name: getattr(final, name) for name in ("weight", "bias", "centre", "scale")})
    known = know_classes(features.numpy(), dataset.labels, folds.of_image)
    temperature, means = final.choice.temperature, torch.from_numpy(known.means)
    classifier = Classifier(chosen.spec, chosen.backbone, head, temperature=temperature, class_means=means)
    description = ClassifierDescription(
        chosen.spec,
        dataset.class_names,
        "linear",
        temperature=temperature,
        has_class_means=True,
        unlike_below=known.unlike_below,
    )
    classifier.cpu().eval()
    with tempfile.TemporaryDirectory() as folder:
        save_for_export(classifier, description, dataset, np.arange(len(dataset.labels)), seed, Path(folder))
        mlflow.log_artifacts(folder)
    mlflow.log_metrics({"l2": final.candidate.l2, "temperature": temperature})
    mlflow.set_tag(CHOSEN_WEIGHTS, chosen.weights)
    log_normalisation(chosen.spec)


def _conclude(estimate: DeliveredEstimate, export_run: str, register_run: str, name: str) -> None:
    from pipelines.reports.advice import advise
    from pipelines.reports.summary import where_lines
    from pipelines.results.columns import wrapped
    from pipelines.results.headline import say_delivered

    sentences = [say_delivered(estimate), *advise(estimate)]
    words = [line for sentence in sentences for line in wrapped(sentence)]
    print("\n".join(["", *words, "", *where_lines(export_run, register_run, name)]))


if __name__ == "__main__":
    run_command_line(ClassifyConfig, run)
