"""Rollback: the champion before the present one becomes champion again.

    mlflow run . -e rollback -P name=eurosat -P reason="wrong on the new camera"

Logs which version, after which, and why.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.command_line.command import run_command_line


@dataclass(frozen=True, kw_only=True)
class RollbackConfig:
    """Rollback of the last promotion."""

    name: str = "transfer-lab"
    """Name of the registered model."""
    reason: str = "not given"
    """Why, for the records."""


def run(config: RollbackConfig) -> str:
    """Roll back and log; returns the run's id."""
    import mlflow

    from pipelines.registration.champion_mark import mark_champion
    from pipelines.store.connection import promotion_lock
    from pipelines.store.runs import rename_run, tracked_run
    from registry.versions import reachable_registry, roll_back

    with tracked_run("rollback", config, f"rollback {config.name}") as run_id:
        with reachable_registry(), promotion_lock():
            left, back = roll_back(config.name)
            mark_champion(config.name)
            decision = f"rolled back to version {back}: {config.reason}"
            mlflow.MlflowClient().set_model_version_tag(config.name, left, "gate", decision)
            mlflow.MlflowClient().set_model_version_tag(config.name, left, "promoted", "False")
        mlflow.set_tags({"gate": decision, "version": back})
        rename_run(f"rollback {config.name}", f"rollback {config.name} to v{back}")
        print(f"rollback {run_id}: {config.name} version {back} is @champion again, version {left} is not")
    return run_id


if __name__ == "__main__":
    run_command_line(RollbackConfig, run)
