"""Which of these is better, and is that more than luck?

    mlflow run . -e compare -P finetune_runs=<id>,<id>,<id>

Takes finetune runs that scored different backbones or recipes on the same episodes, and gives every paired difference
with its interval and a p-value that allows for the number of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.cli import run_command_line


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which of these is better, and is that more than luck? Paired differences on the same episodes."""

    finetune_runs: str
    """Ids of two or more finetune runs, separated by commas."""


def run(config: CompareConfig) -> str:
    """Compare and log; returns the run's id."""
    import mlflow
    import pandas as pd

    from pipelines.evidence import paired_accuracies
    from pipelines.figures import draw_estimates
    from pipelines.tracking import tracked_run
    from tl_core.scoring import compare_all, estimate

    with tracked_run("compare", config) as run_id:
        scores = paired_accuracies([text.strip() for text in config.finetune_runs.split(",") if text.strip()])
        results = {name: estimate(values) for name, values in scores.items()}
        pairs = compare_all(scores)
        table = pd.DataFrame(
            {
                "first": [pair.first for pair in pairs],
                "second": [pair.second for pair in pairs],
                "difference": [pair.difference.mean for pair in pairs],
                "ci95": [pair.difference.ci95 for pair in pairs],
                "p": [pair.p for pair in pairs],
                "p_holm": [pair.p_holm for pair in pairs],
            }
        )
        mlflow.log_text(table.to_csv(index=False), "differences.csv")
        mlflow.log_figure(draw_estimates(results), "accuracies.png")
        mlflow.log_metric("n_episodes", next(iter(results.values())).n)
        lines = [f"{name:<44} {result.percent()}" for name, result in results.items()]
        lines += ["", f"{'difference on the same episodes':<44} in points, 95 % interval; p after Holm"]
        lines += [f"{f'{pair.first} - {pair.second}':<44} {pair.points()}" for pair in pairs]
        mlflow.log_text("\n".join(lines), "comparison.txt")
        print("\n".join(lines))
        print(f"compare {run_id}: {len(results)} runs, {len(pairs)} pairs")
    return run_id


if __name__ == "__main__":
    run_command_line(CompareConfig, run)
