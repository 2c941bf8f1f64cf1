"""Fine-tuning on targets of awkward sizes."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from pipelines import finetune
from pipelines.configs.fields import make_config
from pipelines.finetune import FinetuneConfig
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
