"""`classify`: own images to one file, with an estimate that speaks of this file."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.classify import ClassifyConfig
from pipelines.classify import run as classify
from pipelines.configs.fields import make_config
from pipelines.inputs.artifacts import ONNX_ARTIFACT
from pipelines.predict import PredictConfig
from pipelines.predict import run as predict
from pipelines.reports.advice import advise
from pipelines.results.delivered import OUT_OF_FOLD_ARTIFACT, read_estimate
from pipelines.results.headline import say_delivered
from pipelines.score import ScoreConfig
from pipelines.score import run as score
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.runs import KIND
from registry.versions import champion_of, logged_model_of
from serving.model import OnnxClassifier
from tests.conftest import write_colour_images
from tl_core.data.dataset import load_dataset
from tl_core.errors import InputError

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def config_of(data: Path, **values: object) -> ClassifyConfig:
    return make_config(ClassifyConfig, data=str(data), weights="pixels", image_size=16, **values)


def steps_of(run_id: str) -> dict[str, str]:
    experiment = mlflow.MlflowClient().get_run(run_id).info.experiment_id
    found = mlflow.MlflowClient().search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.data.tags[KIND]: run.info.run_id for run in found}


def test_a_folder_becomes_a_champion_whose_file_is_as_good_as_estimated(colours: Path, tmp_path: Path) -> None:
    run_id = classify(config_of(colours, name="colours"))
    run = mlflow.MlflowClient().get_run(run_id)
    metrics = run.data.metrics
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == 1.0
    assert metrics["accuracy_low"] < 0.97, "60 images of 60 do not prove 100 %"
    assert metrics["accuracy_high"] == 1.0
    steps = steps_of(run_id)
    assert {"fold", "export", "register"} <= set(steps)
    champion = champion_of("colours")
    assert champion is not None
    assert champion.tags["classify_run"] == run_id
    assert run.data.tags["champion"] == "colours v1"
    assert f"](#/experiments/0/runs/{run_id}/artifacts/report.html?" in run.data.tags["mlflow.note.content"]
    headline, links, *_ = str(champion.description).split("\n\n")
    assert headline.startswith("Of 100 new images like these, about 100 are named rightly")
    for link in (f"#/experiments/0/runs/{run_id}/artifacts/report.html?", f"#/experiments/0/runs/{steps['export']}?"):
        assert link in links
    assert headline in mlflow.MlflowClient().get_registered_model("colours").description
    model = OnnxClassifier.load(fetch_artifact(steps["export"], ONNX_ARTIFACT))
    assert json.loads(model.metadata["accuracy"])["low"] == pytest.approx(metrics["accuracy_low"])
    new = load_dataset(str(write_colour_images(tmp_path / "new", seed=7)), 16)
    probabilities, similarity = model.predict_with_similarity(np.array(new.images))
    assert similarity is not None
    assert (probabilities.argmax(1) == new.labels).mean() > 0.95
    page = fetch_artifact(run_id, "report.html").read_text()
    assert "Of 100 new images like these, about 100 are named rightly" in page
    assert "When to believe it" in page
    assert f'#/experiments/0/runs/{steps["export"]}?workflowType=machine_learning">{steps["export"]}</a>' in page


def test_a_version_that_waits_is_the_one_whose_commands_are_printed(
    colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`@champion` alone would sort new images with the older file, and not say so."""
    classify(config_of(colours, name="colours"))
    first = capsys.readouterr().out
    assert "sort new images\n  transfer-lab predict --model models:/colours@champion --images" in first
    assert "waits as" not in first
    run_id = classify(config_of(colours, name="colours"))
    second = " ".join(capsys.readouterr().out.split())
    assert "The new classifier is version 2 and waits as @challenger: against champion version 1 +0.00 points" in second
    assert "Version 1 stays in use as @champion." in second
    assert "sort new images with the new version transfer-lab predict --model models:/colours/2 --images" in second
    assert (
        "sort new images with version 1, the one in use transfer-lab predict --model models:/colours@champion --images"
        in second
    )
    assert "models:/colours/2" in fetch_artifact(run_id, "report.html").read_text()
    card = str(mlflow.MlflowClient().get_model_version("colours", "2").description)
    assert 'load_model("models:/colours/2")' in card


def test_every_image_is_predicted_once_a_repeat_by_folds_without_it(colours: Path) -> None:
    run_id = classify(config_of(colours))
    table = pd.read_parquet(fetch_artifact(run_id, OUT_OF_FOLD_ARTIFACT))
    assert (table.groupby("content_hash")["repeat"].nunique() == table["repeat"].nunique()).all()
    assert len(table) == 60 * table["repeat"].nunique()
    assert (table.groupby(["group", "repeat"])["fold"].nunique() == 1).all()
    of_classes = table[[f"probability:{name}" for name in ("blue", "green", "red")]]
    np.testing.assert_allclose(of_classes.sum(1), 1)


def test_an_estimate_is_read_back_as_it_was_kept(colours: Path) -> None:
    estimate = read_estimate(classify(config_of(colours, wanted_precision=0.5)))
    assert estimate.class_names == ("blue", "green", "red")
    assert estimate.counts == (20, 20, 20)
    assert estimate.bar == 0.0
    assert len(estimate.curve) > 1
    assert "By guessing it would be 33." in say_delivered(estimate)
    assert "Every prediction can be believed" in " ".join(advise(estimate))


def test_networks_are_scored_beside_each_other(colours: Path) -> None:
    config = make_config(ClassifyConfig, data=str(colours), weights="pixels,random", backbone="resnet10_small")
    run_id = classify(config)
    pixels, random = read_estimate(run_id).networks
    (taken,) = (one for one in (pixels, random) if one.difference is None)
    (other,) = (one for one in (pixels, random) if one is not taken)
    assert other.difference is not None
    assert other.difference.n == 60
    assert 0 < pixels.milliseconds < random.milliseconds, "a network takes longer than none"
    page = fetch_artifact(run_id, "report.html").read_text()
    assert f"{taken.network} (taken)" in page


def test_two_classes_of_three_images_work(tmp_path: Path) -> None:
    folder = write_colour_images(tmp_path / "few", n_per_class=3)
    for image in (folder / "blue").iterdir():
        image.unlink()
    (folder / "blue").rmdir()
    estimate = read_estimate(classify(config_of(folder)))
    assert estimate.n_folds == 3
    assert estimate.headline.low < 0.7
    assert "have every prediction checked" in " ".join(advise(estimate))


def test_images_of_one_group_of_a_csv_stay_in_one_fold(colours: Path, tmp_path: Path) -> None:
    table = colours / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "group"])
        for image in sorted(colours.glob("*/*.png")):
            writer.writerow([f"{image.parent.name}/{image.name}", image.parent.name, f"plant {int(image.stem) // 4}"])
    run_id = classify(config_of(table))
    rows = pd.read_parquet(fetch_artifact(run_id, OUT_OF_FOLD_ARTIFACT))
    plants = rows["file"].str.extract(r"/(\d+)\.png")[0].astype(int) // 4
    assert (rows.assign(plant=plants).groupby(["plant", "repeat"])["fold"].nunique() == 1).all()


def test_uneven_classes_are_said_with_what_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_colour_images(tmp_path / "uneven")
    for image in sorted((folder / "red").iterdir())[5:]:
        image.unlink()
    run_id = classify(config_of(folder))
    assert "blue has 20 images and red 5" in capsys.readouterr().err
    estimate = read_estimate(run_id)
    assert "as many of each class" in say_delivered(estimate)
    assert estimate.scores.accuracy.low != estimate.headline.low
    model = OnnxClassifier.load(fetch_artifact(steps_of(run_id)["export"], ONNX_ARTIFACT))
    assert json.loads(model.metadata["accuracy"])["low"] == pytest.approx(estimate.headline.low), (
        "the file says the same"
    )


def test_images_before_one_background_are_classified_and_the_page_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    background = rng.integers(60, 200, (24, 24, 3))
    for label in ("good", "bad"):
        (tmp_path / "parts" / label).mkdir(parents=True)
        for number in range(30):
            pixels = background + rng.normal(0, 3, background.shape)
            pixels[:3, :3] += 50 * (label == "bad")
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / "parts" / label / f"{number}.png")
    run_id = classify(config_of(tmp_path / "parts"))
    assert "nearly the same" in " ".join(read_estimate(run_id).notice)
    assert mlflow.MlflowClient().get_run(run_id).data.metrics["accuracy"] > 0.9


def test_the_same_images_again_are_compared_image_by_image(colours: Path) -> None:
    classify(config_of(colours, name="again"))
    run_id = classify(config_of(colours, name="again"))
    gate = mlflow.MlflowClient().get_run(steps_of(run_id)["register"]).data.tags["gate"]
    assert "on 60 shared images" in gate


def test_the_file_recommends_what_the_run_found(colours: Path, tmp_path: Path) -> None:
    run_id = classify(config_of(colours, wanted_precision=0.9, name="sure"))
    path = fetch_artifact(steps_of(run_id)["export"], ONNX_ARTIFACT)
    bar = mlflow.MlflowClient().get_run(run_id).data.metrics["believe_from"]
    assert OnnxClassifier.load(path).recommended_probability == bar
    options = {"images": str(colours), "output": str(tmp_path / "out.csv"), "min_probability": "recommended"}
    predicted = predict(make_config(PredictConfig, model="models:/sure@champion", **options))
    assert mlflow.MlflowClient().get_run(predicted).data.tags["model_version"] == "models:/sure/1"
    loaded = mlflow.pyfunc.load_model("models:/sure@champion")
    image = next((colours / "red").iterdir()).read_bytes()
    assert loaded.predict([image], params={"abstain": True})["label"].tolist() == ["red"]


def test_few_images_recommend_nothing_and_the_file_says_so(tmp_path: Path) -> None:
    run_id = classify(config_of(write_colour_images(tmp_path / "few", n_per_class=4)))
    model = OnnxClassifier.load(fetch_artifact(steps_of(run_id)["export"], ONNX_ARTIFACT))
    with pytest.raises(InputError, match="recommends no least probability"):
        model.recommended_probability  # noqa: B018 - it raises


def test_score_of_new_images_leaves_unknown_classes_out(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classify(config_of(colours, name="scored"))
    new = write_colour_images(tmp_path / "new", n_per_class=10, seed=9)
    (new / "green").rename(new / "yellow")
    run = mlflow.MlflowClient().get_run(score(make_config(ScoreConfig, model="models:/scored@champion", data=str(new))))
    assert "does not know yellow; 10 images were left out" in capsys.readouterr().err
    assert run.data.metrics["n_images"] == 20
    assert run.data.metrics["accuracy"] == run.data.metrics["balanced_accuracy"] == 1.0
    assert run.data.metrics["accuracy_low"] < 0.9
    assert run.data.tags["model_version"] == "models:/scored/1"
    page = fetch_artifact(run.info.run_id, "report.html").read_text()
    assert "of 20 new images are named rightly" in page
    assert run.data.metrics["drift_p_value"] > 0.05
    assert "not significantly different from the images it was made from" in page
    model_id = logged_model_of(mlflow.MlflowClient().get_model_version("scored", "1"))
    logged = mlflow.MlflowClient().get_logged_model(model_id).metrics or []
    found = {(metric.key, metric.dataset_name) for metric in logged}
    assert found == {(f"accuracy{end}", name) for end in ("", "_low", "_high") for name in ("colours", "new")}


def test_score_notices_images_of_another_camera(colours: Path, tmp_path: Path) -> None:
    classify(config_of(colours, name="camera"))
    new = write_colour_images(tmp_path / "new", n_per_class=10, seed=9)
    for file in new.glob("*/*.png"):
        with Image.open(file) as image:
            darker = image.point(lambda value: value // 2)
        darker.save(file)
    run_id = score(make_config(ScoreConfig, model="models:/camera@champion", data=str(new)))
    assert mlflow.MlflowClient().get_run(run_id).data.metrics["drift_p_value"] < 0.01
    assert "another camera" in fetch_artifact(run_id, "report.html").read_text()


@pytest.mark.parametrize("has_records", [True, False], ids=["records", "file alone"])
def test_images_that_were_learned_are_left_out_of_a_score(
    colours: Path, tmp_path: Path, has_records: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = classify(config_of(colours, name="known"))
    new = write_colour_images(tmp_path / "new", n_per_class=4, seed=9)
    shutil.copy(colours / "red" / "000.png", new / "red" / "copy.png")
    model = fetch_artifact(steps_of(run_id)["export"], ONNX_ARTIFACT)
    if not has_records:
        mlflow.delete_run(run_id)
    scored = score(make_config(ScoreConfig, model=str(model), data=str(new)))
    assert "warning: 1 images are left out, as the classifier was made from them" in capsys.readouterr().err
    assert mlflow.get_run(scored).data.metrics["n_images"] == 12
    assert "Left out: 1 image that the file was made from." in fetch_artifact(scored, "report.html").read_text()
    with pytest.raises(InputError, match="expected images that the classifier was not made from, got 60 that it was"):
        score(make_config(ScoreConfig, model=str(model), data=str(colours)))


def test_score_of_foreign_classes_is_refused(colours: Path, tmp_path: Path) -> None:
    classify(config_of(colours, name="foreign"))
    new = write_colour_images(tmp_path / "new", n_per_class=3, seed=9)
    for name in ("red", "green", "blue"):
        (new / name).rename(new / f"not_{name}")
    with pytest.raises(InputError, match="expected classes of the model"):
        score(make_config(ScoreConfig, model="models:/foreign@champion", data=str(new)))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"priors": "even"}, "expected priors"),
        ({"wanted_precision": 1.01}, "wanted_precision"),
        ({"group": "folder"}, "expected folders above the class folders"),
    ],
)
def test_bad_settings_are_refused(colours: Path, values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        classify(config_of(colours, **values))


@pytest.mark.parametrize(
    ("group", "sentence"), [("a", "expected at least 2 groups, got 1"), ("{label}", "every class")]
)
def test_groups_that_no_fold_can_hold_out_are_refused(colours: Path, group: str, sentence: str) -> None:
    table = colours / "table.csv"
    names = [(f"{image.parent.name}/{image.name}", image.parent.name) for image in sorted(colours.glob("*/*.png"))]
    rows = [f"{file},{label},{group.format(label=label)}" for file, label in names]
    table.write_text("\n".join(["file,label,group", *rows]))
    with pytest.raises(InputError, match=sentence):
        classify(config_of(table))
