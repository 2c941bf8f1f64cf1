"""Fine-tuning on targets of awkward sizes."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from pipelines import finetune
from pipelines.configs.fields import make_config
from pipelines.finetune import FinetuneConfig
from pipelines.results.scores import HARDEST_ARTIFACT, episodes_of
from pipelines.store.artifacts import fetch_artifact
from tests.conftest import write_colour_images
from tl_core.recipes.finetune import FinetuneRecipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("n_per_class", [2, 3, 21])
def test_auto_finds_a_rate_where_the_other_half_is_smaller(n_per_class: int, store: str, tmp_path: Path) -> None:
    config = make_config(
        FinetuneConfig,
        target=str(write_colour_images(tmp_path / "data", n_per_class)),
        part="report" if n_per_class > 20 else "auto",
        weights="random",
        image_size=16,
        n_episodes=1,
        workers=1,
        recipe=FinetuneRecipe(freeze_depth=0.9, max_lr="auto", steps=2),
    )
    run = mlflow.MlflowClient().get_run(finetune.run(config))
    assert 1e-7 < run.data.metrics["max_lr"] < 100
    assert run.data.metrics["n_episodes"] == 1


def test_episodes_whose_fine_tuning_is_taken_back_are_counted(
    store: str, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = {}
    for steps in (0, 10):
        config = make_config(
            FinetuneConfig,
            target=str(colours),
            weights="random",
            image_size=16,
            n_episodes=3,
            workers=1,
            recipe=FinetuneRecipe(freeze_depth=0.0, max_lr=100.0, steps=steps, optimizer="sgd"),
        )
        scored[steps] = mlflow.MlflowClient().get_run(finetune.run(config))
    assert "in 3 of 3 episodes fine-tuning made the loss grow and was taken back" in capsys.readouterr().err
    assert scored[10].data.metrics["n_fell_back"] == 3
    assert "n_fell_back" not in scored[0].data.metrics
    assert scored[10].data.metrics["accuracy"] == scored[0].data.metrics["accuracy"]
    page = fetch_artifact(scored[10].info.run_id, "report.html").read_text()
    assert "In 3 of 3 episodes fine-tuning made the loss on its own images grow" in page


def test_the_mistakes_of_the_hardest_episode_are_all_shown(store: str) -> None:
    config = make_config(
        FinetuneConfig,
        target="digits:target",
        weights="random",
        image_size=16,
        n_episodes=5,
        n_query=6,
        workers=1,
    )
    run_id = finetune.run(config)
    hardest = episodes_of(run_id).sort_values("accuracy", kind="stable").iloc[0]
    mistakes = pd.read_parquet(fetch_artifact(run_id, HARDEST_ARTIFACT))
    assert len(mistakes) == round((1 - hardest["accuracy"]) * 6 * len(hardest["classes"])) > 0
    assert (mistakes["label"] != mistakes["prediction"]).all()
    assert set(mistakes["label"]) <= set(hardest["classes"])
    page = fetch_artifact(run_id, "report.html").read_text()
    section = page.partition("Hardest episode</h2>")[2].partition("</section>")[0]
    assert f"Episode {hardest['episode']} has the lowest accuracy, {100 * hardest['accuracy']:.1f} %" in section
    assert section.count("data:image/jpeg") == len(mistakes)
