"""What does a known system reach on these data?

    mlflow run . -e recipe -P name=cinic_vgg16 -P data=CINIC-10 -P weights=timm

A recipe is a small file in recipes/ (or a path of one's own): an entry point, its arguments, its variants and the
published result. Every variant is run on every data set; what they reach is one table, and on each set they are
compared on the same episodes or test images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.cli import run_command_line
from tl_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """What does a known system reach on these data? A recipe's variants, run and compared."""

    name: str
    """Name of a file in recipes/, without .toml, or the path of one."""
    data: str
    """Data specs, separated by commas; each is a column of the table."""
    weights: str = "random"
    """What the variants start from: one for all, or one for each variant, separated by commas."""
    overrides: str = ""
    """Arguments that replace the recipe's in every variant, separated by spaces: epochs=1 image_size=32."""


def run(config: RecipeConfig) -> str:
    """Run every variant on every data set, compare and log; returns the run's id."""
    import mlflow

    from pipelines import compare
    from pipelines.recipe_files import RUNS_FIELD, load_recipe, plan_runs, runner_of
    from pipelines.recipe_table import describe_results, predictions_table
    from pipelines.tracking import tracked_run

    recipe = load_recipe(config.name)
    plan = plan_runs(recipe, config.data, config.weights, config.overrides)
    start = runner_of(recipe.entry_point)
    with tracked_run("recipe", config, f"recipe {recipe.name}") as run_id:
        found = {
            data: {name: _run_variant(start, one, name, data) for name, one in variants.items()}
            for data, variants in plan.items()
        }
        for run_ids in found.values():
            if len(run_ids) > 1:
                compare.run(compare.CompareConfig(**{RUNS_FIELD[recipe.entry_point]: ",".join(run_ids.values())}))
        lines = [*describe_results(found), "", f"published: {recipe.published}"]
        lines += [f"measured:  {recipe.measured}"] if recipe.measured else []
        mlflow.log_text("\n".join(lines), "results.txt")
        if recipe.entry_point == "train":
            mlflow.log_text(predictions_table(found).to_csv(index=False), "predictions.csv")
        print("\n".join(["", *lines]))
        print(f"recipe {run_id}: {recipe.name}, {sum(map(len, found.values()))} runs")
    return run_id


def _run_variant(start: Callable[[Any], str], config: Any, name: str, data: str) -> str:
    try:
        return start(config)
    except InputError as error:
        raise InputError(f"{name!r} on {data}: {error}") from error


if __name__ == "__main__":
    run_command_line(RecipeConfig, run)
