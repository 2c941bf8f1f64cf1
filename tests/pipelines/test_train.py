"""The train entry point on made pictures: its records, its classifier and its refusals."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run

from pipelines import export, pretrain, train
from pipelines.configs.fields import make_config
from pipelines.pretrain import PretrainConfig
from pipelines.store.artifacts import fetch_artifact
from pipelines.train import TrainConfig
from tests.conftest import write_colour_images
from tl_core.errors import InputError
from tl_core.images.decoding import decode_image
from tl_core.recipes.pretrain import PretrainRecipe
from tl_core.recipes.train import TrainRecipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

RECIPE = TrainRecipe(epochs="2,3", freeze_depth="1,0.5", augment="flip,crop", head="dense_norm", batch_size=8)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Class folders of colours in folders train, valid and test."""
    for seed, part in enumerate(("train", "valid", "test")):
        write_colour_images(tmp_path / "parts" / part, n_per_class=8, size=16, seed=seed)
    return tmp_path / "parts"


@pytest.fixture
def trained(request: pytest.FixtureRequest, parts: Path, store: str) -> Run:
    features = getattr(request, "param", "last")
    run_id = train.run(make_config(TrainConfig, data=str(parts), image_size=16, features=features, recipe=RECIPE))
    return mlflow.MlflowClient().get_run(run_id)


def curve(run_id: str, name: str) -> list[float]:
    return [point.value for point in mlflow.MlflowClient().get_metric_history(run_id, name)]


def stages_of(run: Run) -> list[Run]:
    wanted = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    runs = mlflow.MlflowClient().search_runs([run.info.experiment_id], wanted)
    return sorted(runs, key=lambda run: str(run.info.run_name))


def test_the_records_of_a_training_agree_with_each_other(trained: Run, parts: Path) -> None:
    run_id, metrics = trained.info.run_id, trained.data.metrics
    stages = stages_of(trained)
    assert [stage.info.run_name for stage in stages] == ["stage-1", "stage-2"]
    assert [stage.data.params["freeze_depth"] for stage in stages] == ["1.0", "0.5"]
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert len(curve(run_id, name)) == 5
        assert curve(run_id, name) == [v for stage in stages for v in curve(stage.info.run_id, name)]
    best = [stage.data.metrics["val/best_accuracy"] for stage in stages]
    assert best == [max(curve(stage.info.run_id, "val/accuracy")) for stage in stages]
    chosen = 2 if best[1] >= best[0] else 1
    assert metrics["stage"] == chosen
    assert metrics["test/accuracy"] == stages[chosen - 1].data.metrics["test/accuracy"]
    table = pd.read_parquet(fetch_artifact(run_id, "predictions.parquet"))
    assert metrics["test/accuracy"] == pytest.approx((table["label"] == table["prediction"]).mean())
    assert metrics["test/accuracy_low"] < metrics["test/accuracy"] <= metrics["test/accuracy_high"]
    for name in ("accuracy", "accuracy_low", "accuracy_high"):
        assert metrics[name] == metrics[f"test/{name}"]
    assert {"test/precision", "test/recall", "test/f1"} <= metrics.keys()
    assert (metrics["n_train"], metrics["n_val"], metrics["n_test"]) == (24, 24, 24)
    assert sorted(table["file"]) == sorted(str(p.relative_to(parts)) for p in (parts / "test").rglob("*.png"))
    for artifact in ("curves.png", "confusion.png"):
        assert fetch_artifact(run_id, artifact).stat().st_size > 1000
    report = fetch_artifact(run_id, "report.html").read_text()
    assert f"{100 * metrics['test/accuracy']:.1f} % (" in report
    assert report.count("data:image/jpeg") >= 12  # right ones at least


@pytest.mark.parametrize("trained", ["last", "stages"], indirect=True)
def test_the_exported_file_gives_the_predictions_that_were_scored(trained: Run, parts: Path) -> None:
    from pipelines.inputs.artifacts import ONNX_ARTIFACT
    from serving.model import OnnxClassifier

    export_run = export.run(export.ExportConfig(run=trained.info.run_id))
    model = OnnxClassifier.load(fetch_artifact(export_run, ONNX_ARTIFACT))
    table = pd.read_parquet(fetch_artifact(trained.info.run_id, "predictions.parquet"))
    images = np.stack([decode_image(parts / file, 16) for file in table["file"]])
    probabilities = model.predict(images)
    assert [model.class_names[i] for i in probabilities.argmax(1)] == table["prediction"].tolist()
    assert probabilities.max(1).tolist() == pytest.approx(table["probability"].tolist(), abs=1e-5)


def test_a_backbone_that_has_seen_the_test_images_is_refused(parts: Path, store: str) -> None:
    recipe = PretrainRecipe(epochs=1, batch_size=16)
    backbone = pretrain.run(make_config(PretrainConfig, source=str(parts), image_size=16, recipe=recipe))
    with pytest.raises(InputError, match="has seen 24 of the 24 images to report on"):
        train.run(make_config(TrainConfig, data=str(parts), weights=backbone, recipe=RECIPE))


def test_a_backbone_hands_on_what_it_has_seen(parts: Path, store: str, tmp_path: Path) -> None:
    recipe = PretrainRecipe(epochs=1, batch_size=16)
    first = pretrain.run(make_config(PretrainConfig, source=str(parts), image_size=16, recipe=recipe))
    others = str(write_colour_images(tmp_path / "others", seed=9))
    second = pretrain.run(make_config(PretrainConfig, source=others, weights=first, image_size=16, recipe=recipe))
    with pytest.raises(InputError, match=f"pretrain run {second} has seen 24 of the 24 images to report on"):
        train.run(make_config(TrainConfig, data=str(parts), weights=second, recipe=RECIPE))


def test_a_class_that_only_the_test_part_has_is_refused(parts: Path, store: str) -> None:
    (parts / "train" / "red").rename(parts.parent / "elsewhere")
    with pytest.raises(InputError, match="classes that its training part lacks: red"):
        train.run(make_config(TrainConfig, data=str(parts), image_size=16))
