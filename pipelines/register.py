"""Registration with a gate: is this the version to trust?

    mlflow run . -e register -P run=<export run> -P finetune_run=<finetune run> -P name=eurosat
    mlflow run . -e register -P run=<export run of a train run> -P name=flowers

Registers the exported file as `@challenger`. It becomes `@champion` if it holds parity and its budgets, and if there is
none yet or its accuracy, on the images that both were scored on, is not worse by more than the tolerance than that of
the champion and of those before it, with 97.5 % confidence. Few images cannot show that; then it says how many points
they can. What was decided is logged with its reason; `rollback` takes a promotion back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from tl_core.recipes.checks import check_range

if TYPE_CHECKING:
    from mlflow.entities import Run

    from registry.gate import Decision


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """Registration of an exported file, with a gate."""

    run: str
    """Export run whose file is registered."""
    finetune_run: str = ""
    """Finetune run that measured this backbone and recipe: the evidence. A train run is its own."""
    name: str = "transfer-lab"
    """Name of the registered model."""
    tolerance: float = 0.01
    """Accuracy, as a fraction, that a challenger may at worst lose against the champion."""

    max_megabytes: float = 0.0
    """Size that a champion's file may have; 0 is any."""
    max_latency_ms: float = 0.0
    """Milliseconds that a champion may take for one image file, as `export` measured them; 0 is any number."""

    def __post_init__(self) -> None:
        check_range("tolerance", self.tolerance, 0, 1)
        check_range("max_megabytes", self.max_megabytes, 0, 1e9)
        check_range("max_latency_ms", self.max_latency_ms, 0, 1e9)


def run(config: RegisterConfig) -> str:
    """Register, decide and log; returns the run's id."""
    import mlflow

    from pipelines.configs.fields import flat_params
    from pipelines.inputs.artifacts import ONNX_ARTIFACT
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.registration.champion_mark import mark_champion
    from pipelines.registration.evidence import find_scored_run
    from pipelines.registration.version_notes import describe_version
    from pipelines.store.artifacts import fetch_artifact
    from pipelines.store.connection import promotion_lock
    from pipelines.store.find import find_run
    from pipelines.store.params import log_params
    from pipelines.store.runs import rename_run, tracked_run
    from registry.versions import champion_of, logged_model_of, reachable_registry, register_challenger

    with tracked_run("register", config, f"register {config.name}") as run_id:
        config = with_run_ids(config, run="export", finetune_run="finetune")
        log_params(flat_params(config))
        export_run = find_run(config.run, "export")
        scored_run = find_scored_run(export_run, config.finetune_run)
        new = describe_version(config.name, export_run, scored_run, fetch_artifact(config.run, ONNX_ARTIFACT))
        with reachable_registry():
            champion_of(config.name)  # a registry that is down is noticed before anything is written
            registered = register_challenger(config.name, new)
            version = registered.version
            rename_run(f"register {config.name}", f"register {config.name} v{version}")
            _log_scores(scored_run, logged_model_of(registered))
            with promotion_lock():
                decision = _decide(config, export_run, scored_run, version)
                mark_champion(config.name)
            logged = {"gate": decision.reason, "promoted": str(decision.promote)}
            for key, value in logged.items():
                mlflow.MlflowClient().set_model_version_tag(config.name, version, key, value)
        mlflow.set_tags({**logged, "version": version})
        mlflow.log_text(new.card(version), "card.md")
        verdict = "is now @champion" if decision.promote else "stays @challenger"
        print(f"register {run_id}: {config.name} version {version} {verdict}: {decision.reason}")
    return run_id


def _log_scores(scored_run: Run, model_id: str) -> None:
    """Log how good a version is with the model that MLflow shows it as, and with the active run."""
    from pipelines.store.logging import ACCURACY_METRICS, dataset_of, log_model_metrics

    metrics = {name: value for name, value in scored_run.data.metrics.items() if name in ACCURACY_METRICS}
    if metrics and model_id:
        log_model_metrics(model_id, metrics, dataset_of(scored_run))


def _decide(config: RegisterConfig, export_run: Run, scored_run: Run, version: str) -> Decision:
    """Compare a version with the champion as it is now, and promote it where the gate says so."""
    from pipelines.registration.evidence import load_evidence, measured_of
    from pipelines.registration.version_notes import scored_run_of
    from registry.gate import Budgets, Champion, Decision, check_file, decide, decide_first
    from registry.versions import champion_of, champions_until, describe_champion, predecessor_of, promote

    decision = check_file(measured_of(export_run), Budgets(config.max_megabytes, config.max_latency_ms))
    champion = champion_of(config.name)
    promoted = champion is not None and str(champion.version) == str(version)
    if champion is not None and promoted:  # by this command, before it was interrupted: decided again, as it was then
        champion = predecessor_of(champion)
    if decision.promote:
        challenger = load_evidence(scored_run.info.run_id)
        champions = [
            Champion(str(one.version), load_evidence(scored_run_of(one.tags))) for one in champions_until(champion)
        ]
        decision = decide(challenger, champions, config.tolerance) if champions else decide_first(challenger)
    if decision.promote and promoted:  # what it was interrupted before
        describe_champion(config.name)
    if decision.promote and not promoted and not promote(config.name, version, champion):
        return Decision(False, "another version became champion while this one was compared; register it again")
    return decision


if __name__ == "__main__":
    run_command_line(RegisterConfig, run)
