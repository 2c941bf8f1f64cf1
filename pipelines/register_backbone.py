"""Registration of a pretrained backbone, for others to start from.

    mlflow run . -e register_backbone -P run=<pretrain run> -P name=mini-imagenet-resnet10

Registers the weights of a pretrain run as the newest version, with what it was trained on and how well. `weights`
takes the run id that `models:/<name>/<version>` shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True, kw_only=True)
class RegisterBackboneConfig:
    """Registration of pretrained weights."""

    run: str
    """Pretrain run whose backbone is registered."""
    name: str = "transfer-lab-backbone"
    """Name of the registered model."""


def run(config: RegisterBackboneConfig) -> str:
    """Register; returns the run's id."""
    import mlflow

    from pipelines.configs.fields import flat_params
    from pipelines.inputs.artifacts import BACKBONE_ARTIFACT
    from pipelines.store.artifacts import fetch_artifact
    from pipelines.store.find import find_run
    from pipelines.store.params import log_params
    from pipelines.store.runs import rename_run, tracked_run
    from registry.versions import create_version, reachable_registry

    with tracked_run("register_backbone", config, f"register {config.name}") as run_id:
        pretrain_run = find_run(config.run, "pretrain")
        config = replace(config, run=pretrain_run.info.run_id)
        log_params(flat_params(config))
        fetch_artifact(config.run, BACKBONE_ARTIFACT)
        tags = {
            "pretrain_run": config.run,
            "source_fingerprint": pretrain_run.data.tags.get("source_fingerprint", ""),
        }
        source = f"{pretrain_run.info.artifact_uri}/{BACKBONE_ARTIFACT}"
        with reachable_registry():
            version = create_version(config.name, source, _describe(pretrain_run), tags).version
        mlflow.set_tag("version", version)
        rename_run(f"register {config.name}", f"register {config.name} v{version}")
        print(f"register_backbone {run_id}: {config.name} version {version}")
    return run_id


def _describe(pretrain_run: Run) -> str:
    from pipelines.store.params import used_params

    params, metrics = used_params(pretrain_run), pretrain_run.data.metrics
    accuracy = f"{100 * metrics['test/accuracy']:.2f} %" if "test/accuracy" in metrics else "not recorded"
    novel = "".join(
        f"\n- {name}: {100 * value:.2f} +- {100 * metrics.get(f'{name}_ci95', float('nan')):.2f} %"
        for name, value in sorted(metrics.items())
        if name.startswith("novel/") and not name.endswith("_ci95")
    )
    return (
        f"# {params['backbone']} at {params['image_size']} px\n\n- trained on {params['source']}\n"
        f"- test accuracy on held-out images of the source: {accuracy}{novel}\n"
        f"- use: weights={pretrain_run.info.run_id}"
    )


if __name__ == "__main__":
    run_command_line(RegisterBackboneConfig, run)
