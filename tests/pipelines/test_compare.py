"""compare on train runs: the same images, or none at all."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines import compare, train
from pipelines.compare import CompareConfig
from pipelines.configs.fields import make_config
from pipelines.inputs.names import network_name, short_network, short_weights
from pipelines.reports.comparisons import _say_standing
from pipelines.reports.words import say_interval
from pipelines.results.columns import aligned
from pipelines.store.artifacts import fetch_artifact
from pipelines.train import TrainConfig
from tests.conftest import write_colour_images
from tl_core.errors import InputError
from tl_core.networks.backbones import BackboneSpec
from tl_core.recipes.train import TrainRecipe
from tl_core.scoring.images import compare_on_images, wilson

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
    text = fetch_artifact(run_id, "comparison.txt").read_text()
    assert text in capsys.readouterr().out
    report = fetch_artifact(run_id, "report.html").read_text()
    headline = f"learned: {say_interval(wilson(hits[0]))} of 12 test images; the highest, not told apart from hardly"
    assert headline in html.unescape(report)
    assert "Settings in which they differ" in report
    assert "learned - hardly" in report
    assert wilson(hits[0]).percent() in text  # the very interval that the run itself gave
    settings = text.split("\n\n")[-1].splitlines()
    assert [line.split() for line in settings] == [["setting", "learned", "hardly"], ["max_lr", "1e-2", "1e-9"]]
    assert "random" in text.splitlines()[1]  # the table says what the network started from
    for artifact in ("accuracies.png", "curves.png"):
        assert fetch_artifact(run_id, artifact).stat().st_size > 1000


def test_what_is_not_told_apart_is_not_called_best(data: Path, store: str) -> None:
    runs = [trained(data, "one"), trained(data, "same")]
    run_id = compare.run(CompareConfig(runs=",".join(runs)))
    report = fetch_artifact(run_id, "report.html").read_text()
    assert "the highest, not told apart from same" in report
    assert "They were given the same settings." in report
    assert "setting" not in fetch_artifact(run_id, "comparison.txt").read_text()


def test_only_what_is_told_apart_from_all_others_is_better_than_they() -> None:
    many, few, none = np.ones(40, bool), np.arange(40) % 8 > 0, np.arange(40) % 2 > 0
    of_three = compare_on_images({"many": many, "few": few, "none": none})
    assert _say_standing("many", of_three) == "the highest, not told apart from few"
    assert _say_standing("many", compare_on_images({"many": many, "none": none})) == "better than all others"


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


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([("run", "accuracy"), ("a long name", "1 %")]) == ["run          accuracy", "a long name  1 %"]
