"""Is this the version to trust?

    mlflow run . -e register -P export_run=<id> -P finetune_run=<id> -P name=eurosat

Registers the exported file as `@challenger`. It becomes `@champion` if there is none yet, or if its accuracy on the
same episodes is not worse than the champion's by more than the tolerance; the decision is logged with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.cli import run_command_line
from tl_core.recipes import check_range


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """Is this the version to trust? Registration with a gate."""

    export_run: str
    """Id of an export run."""
    finetune_run: str
    """Id of the finetune run that measured this backbone and recipe: the evidence."""
    name: str = "transfer-lab"
    """Name of the registered model."""
    tolerance: float = 0.01
    """Accuracy, as a fraction, that a challenger may at worst lose against the champion."""

    def __post_init__(self) -> None:
        check_range("tolerance", self.tolerance, 0, 1)


def run(config: RegisterConfig) -> str:
    """Register, decide and log; returns the run's id."""
    import mlflow

    from pipelines.evidence import describe, load_evidence
    from pipelines.networks import ONNX_ARTIFACT
    from pipelines.provenance import check_same_origin
    from pipelines.tracking import fetch_artifact, find_run, tracked_run
    from registry.gate import Decision, decide
    from registry.versions import NewVersion, champion_of, promote, register_challenger

    with tracked_run("register", config) as run_id:
        export_run = find_run(config.export_run, "export")
        finetune_run = find_run(config.finetune_run, "finetune")
        check_same_origin(finetune_run, find_run(export_run.data.params["fit_run"], "fit"))
        champion = champion_of(config.name)
        if champion is None:
            decision = Decision(True, "there was no champion")
        else:
            evidence = load_evidence(champion.tags.get("finetune_run", ""))
            decision = decide(load_evidence(config.finetune_run), evidence, config.tolerance)
        tags = {"export_run": config.export_run, "finetune_run": config.finetune_run, "gate": decision.reason}
        path = fetch_artifact(config.export_run, ONNX_ARTIFACT)
        version = register_challenger(config.name, NewVersion(path, describe(finetune_run), tags))
        if decision.promote:
            promote(config.name, version.version)
        mlflow.set_tags({"gate": decision.reason, "promoted": decision.promote, "version": version.version})
        verdict = "is now @champion" if decision.promote else "stays @challenger"
        print(f"register {run_id}: {config.name} version {version.version} {verdict}: {decision.reason}")
    return run_id


if __name__ == "__main__":
    run_command_line(RegisterConfig, run)
