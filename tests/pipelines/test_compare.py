"""compare on train and classify runs: the same images, or none at all."""

from __future__ import annotations

import html
import itertools
import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from pipelines import classify, compare, train
from pipelines.classify import ClassifyConfig
from pipelines.compare import CompareConfig
from pipelines.configs.fields import make_config
from pipelines.inputs.names import network_name, short_network, short_weights
from pipelines.reports.kinds.compare import _say_standing
from pipelines.reports.words import say_interval
from pipelines.results.columns import WIDTH, aligned
from pipelines.results.scores import image_accuracies
from pipelines.store.artifacts import fetch_artifact
from pipelines.train import TrainConfig
from tests.conftest import write_colour_images
from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec
from tl_core.recipes.train import TrainRecipe
from tl_core.scoring.images import wilson
from tl_core.scoring.paired import compare_pairs, paired_over_images

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def trained(data: Path, name: str, max_lr: str = "1e-2", seed: int = 0) -> str:
    recipe = TrainRecipe(epochs="2", max_lr=max_lr, batch_size=8)
    return train.run(make_config(TrainConfig, data=str(data), image_size=16, name=name, seed=seed, recipe=recipe))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colour_images(tmp_path / "data", n_per_class=20, size=16)


def test_train_runs_are_compared_on_the_same_images(data: Path, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [trained(data, "learned"), trained(data, "hardly", max_lr="1e-9")]
    run_id = compare.run(CompareConfig(runs=", ".join(runs)))
    hits = []
    for run in runs:
        table = pd.read_parquet(fetch_artifact(run, "predictions.parquet"))
        hits.append((table["label"] == table["prediction"]).to_numpy())
    (row,) = pd.read_csv(fetch_artifact(run_id, "differences.csv")).to_dict("records")
    assert (row["first"], row["second"]) == ("learned", "hardly")
    assert row["difference"] == pytest.approx(hits[0].mean() - hits[1].mean())
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["p"] == row["p_holm"]
    assert row["n_images"] == 12
    text = fetch_artifact(run_id, "comparison.txt").read_text()
    assert text in capsys.readouterr().out
    report = fetch_artifact(run_id, "report.html").read_text()
    standing = "the highest, not significantly different from hardly"
    assert f"learned: {say_interval(wilson(hits[0]))} of 12 test images; {standing}" in html.unescape(report)
    assert "Settings in which they differ" in report
    assert "learned - hardly" in report
    assert wilson(hits[0]).percent() in text  # the very interval that the run itself gave
    settings = text.split("\n\n")[-1].splitlines()
    assert [line.split() for line in settings] == [["setting", "learned", "hardly"], ["max_lr", "1e-2", "1e-9"]]
    assert "random" in text.splitlines()[1]  # the table says what the network started from
    for artifact in ("accuracies.png", "curves.png"):
        assert fetch_artifact(run_id, artifact).stat().st_size > 1000


def classified(data: Path, **values: object) -> str:
    return classify.run(make_config(ClassifyConfig, data=str(data), image_size=16, **values))


def test_classify_runs_are_compared_on_the_images_that_both_have(
    data: Path, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second has fewer images, and wrong labels for half of those of one class."""
    other = shutil.copytree(data, tmp_path / "other")
    for image in sorted((other / "red").iterdir())[:10]:
        image.rename(other / "green" / f"red{image.name}")
    for image in sorted((other / "blue").iterdir())[:5]:
        image.unlink()
    runs = [classified(data, weights="pixels"), classified(other, weights="pixels")]
    run_id = compare.run(CompareConfig(runs=",".join(runs)))
    (row,) = pd.read_csv(fetch_artifact(run_id, "differences.csv")).to_dict("records")
    first, second = (image_accuracies(run)["accuracy"] for run in runs)
    shared = first.index.intersection(second.index)
    assert row["n_images"] == len(shared) == 55
    assert row["difference"] == pytest.approx((first[shared] - second[shared]).mean())
    assert row["difference"] > 0
    accuracy = mlflow.get_run(runs[0]).data.metrics["accuracy"]
    text = capsys.readouterr().out
    assert re.search(rf"^data +{100 * accuracy:.1f} %", text, re.MULTILINE)
    report = html.unescape(fetch_artifact(run_id, "report.html").read_text())
    assert "data: significantly better than all others, on the images that both have" in report


def test_classify_runs_of_other_classes_or_other_images_are_refused(data: Path, tmp_path: Path, store: str) -> None:
    fewer, others = shutil.copytree(data, tmp_path / "fewer"), write_colour_images(tmp_path / "others", 5, 16, seed=9)
    shutil.rmtree(fewer / "red")
    run, other_classes, other_images = (classified(folder, weights="pixels") for folder in (data, fewer, others))
    with pytest.raises(InputError, match=r"expected the same classes in classify runs .*, got red in one of them"):
        compare.run(CompareConfig(runs=f"{run},{other_classes}"))
    with pytest.raises(InputError, match="expected 10 or more images that data and others share, got 0; score both"):
        compare.run(CompareConfig(runs=f"{run},{other_images}"))


def test_runs_of_two_kinds_are_refused(data: Path, store: str) -> None:
    runs = [trained(data, "learned"), classified(data, weights="pixels")]
    with pytest.raises(InputError, match="expected runs of one kind, got classify and train"):
        compare.run(CompareConfig(runs=",".join(runs)))


def test_what_is_not_significantly_different_is_not_called_best(data: Path, store: str) -> None:
    runs = [trained(data, "one"), trained(data, "same")]
    run_id = compare.run(CompareConfig(runs=",".join(runs)))
    report = fetch_artifact(run_id, "report.html").read_text()
    assert "the highest, not significantly different from same" in report
    assert "They were given the same settings." in report
    text = fetch_artifact(run_id, "comparison.txt").read_text()
    assert "setting" not in text
    assert "over 12 images, p = 1: not significantly different" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= WIDTH
    (row,) = pd.read_csv(fetch_artifact(run_id, "differences.csv")).to_dict("records")
    assert row["difference"] == 0  # the predictions are the same, and yet twelve images say little
    assert row["low"] < -0.05
    assert row["high"] > 0.05


def test_only_what_differs_significantly_from_all_others_is_better_than_they() -> None:
    hits = {"many": np.ones(40), "few": np.arange(40) % 20 > 0, "none": np.arange(40) % 2 > 0}
    pairs = list(itertools.combinations(hits, 2))
    of_three = compare_pairs({(a, b): paired_over_images(hits[a] * 1.0 - hits[b] * 1.0) for a, b in pairs})
    assert _say_standing("many", of_three) == "the highest, not significantly different from few"
    assert _say_standing("many", of_three[1:2]) == "significantly better than all others"


def test_runs_of_earlier_releases_are_refused_with_what_to_do(data: Path, store: str) -> None:
    runs = [trained(data, "one"), trained(data, "old")]
    uri = str(mlflow.MlflowClient().get_run(runs[1]).info.artifact_uri)
    table = Path(uri.removeprefix("file://"), "images.parquet")
    pd.read_parquet(table).drop(columns=["content_hash", "group"]).to_parquet(table)
    with pytest.raises(InputError, match=f"expected content hashes in images.parquet of run {runs[1]}.*repeat the run"):
        compare.run(CompareConfig(runs=",".join(runs)))


def test_train_runs_with_other_test_images_are_refused(data: Path, store: str) -> None:
    runs = [trained(data, "one"), trained(data, "other", seed=1)]
    with pytest.raises(InputError, match="different test images"):
        compare.run(CompareConfig(runs=",".join(runs)))
    with pytest.raises(InputError, match="two or more different train runs"):
        compare.run(CompareConfig(runs=f"{runs[0]},{runs[0]}"))


@pytest.mark.parametrize(
    ("weights", "short"),
    [
        ("0123456789abcdef" * 2, "run 01234567"),
        ("folder/of/lite0.safetensors", "lite0.safetensors"),
        ("timm:a1_in1k", "timm:a1_in1k"),
        ("random", "random"),
    ],
)
def test_a_table_says_shortly_what_a_network_started_from(weights: str, short: str) -> None:
    assert short_weights(weights) == short
    name = network_name(weights, BackboneSpec("resnet10", 64), seed=3)
    assert short_network(name) == f"resnet10, {short}"
    name = network_name(weights, BackboneSpec("resnet10", 64, features="stages"), seed=3)
    assert short_network(name) == f"resnet10, {short}, stages"


def test_raw_pixels_have_no_weights() -> None:
    assert short_network(network_name("pixels", BackboneSpec("pixels", 64), seed=3)) == "pixels"


def test_what_a_terminal_has_no_room_for_goes_on_below() -> None:
    words = "many words " * 12
    name, *more = aligned([("a name", words)])
    assert name.startswith("a name  many words")
    assert all(line.startswith("        many") or line.startswith("        words") for line in more)
    assert aligned([("n" * 70, words)])[0] == "n" * 70
    cells = aligned([("run", "weights", "accuracy"), ("first", "w" * 64, "90 %"), ("second", "v" * 64, "91 %")])
    assert cells[:3] == ["first", f"  weights   {'w' * 64}", "  accuracy  90 %"]
    for lines in ([name, *more], aligned([("n" * 70, words)]), cells):
        assert max(map(len, lines)) <= WIDTH


def test_a_number_stays_with_its_sign() -> None:
    lines = aligned([("a name", "in words " * 7 + "± 3.24 over 6 episodes")])
    assert any("± 3.24" in line for line in lines)


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([("run", "accuracy"), ("a long name", "1 %")]) == ["run          accuracy", "a long name  1 %"]
