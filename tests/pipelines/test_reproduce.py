"""Every reproduction that comes along, on made pictures; and what a reproduction must not be."""

from __future__ import annotations

import tomllib
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from pipelines import reproduce
from pipelines.command_line.reproduction_files import load_reproduction, plan_runs, reproduction_names
from pipelines.configs.fields import ROOT
from pipelines.reports.reproduction_table import _titles
from pipelines.reproduce import ReproduceConfig
from pipelines.store.artifacts import fetch_artifact
from tests.conftest import write_colour_images
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SMALL = "image_size=32 batch_size=16"
FEW = "n_way=3 n_shot=2 n_query=3 n_episodes=2 steps=2 image_size=32"
# Networks of hundreds of layers need not run to see that their reproduction does; they are built in
# test_every_network_of_a_reproduction_is_one_that_timm_has.
CASES = {
    "cinic_vgg16": f"{SMALL} epochs=1 backbone=resnet10_small",
    "eurosat_finetuned": f"{SMALL} epochs=1,1 backbone=resnet10_small",
    "eurosat_frozen": f"{SMALL} epochs=1",
    "fewshot_backbones": f"{FEW} backbone=resnet10_small",
    "fewshot_eurosat": f"{FEW} backbone=resnet10_small",
    "flowers_resnet34": f"{SMALL} epochs=1",
    "flowers_resnet9": f"{SMALL} epochs=1,1",
    "small_sets": f"{SMALL} epochs=1,1 backbone=resnet10_small",
}


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Colours in the layout of CINIC-10, 24 training images: two steps an epoch."""
    for seed, (part, n_per_class) in enumerate({"train": 11, "valid": 4, "test": 4}.items()):
        write_colour_images(tmp_path / "parts" / part, n_per_class=n_per_class, size=32, seed=seed)
    return tmp_path / "parts"


def test_there_is_a_case_for_every_reproduction() -> None:
    assert sorted(CASES) == reproduction_names()


def test_the_page_of_reproductions_has_the_command_of_each() -> None:
    page = " ".join((ROOT / "docs" / "reproductions.md").read_text().split())
    for name in reproduction_names():
        fields = tomllib.loads((ROOT / "reproductions" / f"{name}.toml").read_text())
        assert " ".join(fields["command"].strip().splitlines()[-1].split()) in page


@pytest.mark.parametrize("name", CASES)
def test_every_reproduce_runs_and_its_table_is_complete(name: str, parts: Path, store: str) -> None:
    run_id = reproduce.run(ReproduceConfig(name=name, data=str(parts), overrides=CASES[name]))
    text = fetch_artifact(run_id, "results.txt").read_text()
    (variants,) = plan_runs(load_reproduction(name), str(parts), "random", CASES[name]).values()
    for variant in variants:
        assert any(line.startswith(variant) and "(" in line for line in text.splitlines())
    assert f"published: {load_reproduction(name).published}" in text
    assert "random" in text  # what the variants started from
    experiment = mlflow.MlflowClient().get_run(run_id).info.experiment_id
    children = mlflow.MlflowClient().search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    kinds = sorted(child.data.tags["kind"] for child in children)
    entry_point = load_reproduction(name).entry_point
    assert kinds == sorted([entry_point] * len(variants) + ["compare"] * (len(variants) > 1))
    for child in children:
        if child.data.tags["kind"] == "compare" and entry_point == "train":
            assert fetch_artifact(child.info.run_id, "curves.png").stat().st_size > 1000  # of all variants


def test_every_network_of_a_reproduction_is_one_that_timm_has() -> None:
    import timm

    from tl_core.networks import architectures  # noqa: F401 - registers our own

    for name in reproduction_names():
        for arguments in load_reproduction(name).variants.values():
            assert timm.is_model(arguments["backbone"])


def test_several_sets_are_the_columns_and_the_predictions_are_of_all(parts: Path, tmp_path: Path, store: str) -> None:
    other = write_colour_images(tmp_path / "other", n_per_class=10, size=32)
    own = tmp_path / "own.toml"
    own.write_text('published = ""\nmeasured = ""\nentry_point = "train"\n[arguments]\nfreeze_depth = "1,0"')
    overrides = f"{SMALL} epochs=1,1 backbone=resnet10_small"
    run_id = reproduce.run(ReproduceConfig(name=str(own), data=f"{parts}, {other}", overrides=overrides))
    lines = fetch_artifact(run_id, "results.txt").read_text().splitlines()
    assert lines[0].split() == ["parts", "other"]
    assert lines[1].startswith("own")
    assert lines[1].count("->") == 2  # frozen, then fine-tuned, on each of the sets
    table = pd.read_csv(fetch_artifact(run_id, "predictions.csv"))
    counted = table.groupby(["data", "variant"]).size()
    assert counted.to_dict() == {("parts", "own"): 12, ("other", "own"): 6}


KEEPS = (
    'published = ""\nmeasured = ""\nentry_point = "train"\n[arguments]\nepochs = 1\n'
    '[[variants]]\nname = "keeps"\nnorm_statistics = "keep"\n'
)
"""A reproduction that cannot run from random weights, which have no statistics to keep."""


def _reproduce_runs() -> list[mlflow.entities.Run]:
    found: list[mlflow.entities.Run] = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.kind = 'reproduce'", output_format="list"
    )
    return found


def test_a_variant_that_fails_is_named_and_leaves_the_table_to_the_others(
    parts: Path, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_colour_images(tmp_path / "other", n_per_class=10, size=32)
    own = tmp_path / "own.toml"
    own.write_text(f'{KEEPS}[[variants]]\nname = "one"\n[[variants]]\nname = "two"\nhead = "dense"')
    overrides = f"{SMALL} backbone=resnet10_small"
    with pytest.raises(
        InputError, match=r"2 failed, reproduce run \w+ has the table of the others; 'keeps' on .*parts: expected norm_"
    ):
        reproduce.run(ReproduceConfig(name=str(own), data=f"{parts},{other}", overrides=overrides))
    (found,) = _reproduce_runs()
    assert found.info.status == "FAILED"
    lines = fetch_artifact(found.info.run_id, "results.txt").read_text().splitlines()
    assert lines[1].split() == ["keeps", "failed", "failed"]
    assert [line.split()[0] for line in lines[2:4]] == ["one", "two"]
    assert not any(line.startswith("keeps:") for line in lines)  # no mean, and nothing that it started from
    assert sum(line.startswith("one:") for line in lines) == 2
    assert sum(line.startswith("failed:    'keeps' on ") for line in lines) == 2
    table = pd.read_csv(fetch_artifact(found.info.run_id, "predictions.csv"))
    assert sorted(table["variant"].unique()) == ["one", "two"]
    assert capsys.readouterr().err.count("failed: 'keeps' on") == 1  # once others had been done


def test_variants_that_cannot_be_compared_have_their_table_all_the_same(
    parts: Path, tmp_path: Path, store: str
) -> None:
    own, data = tmp_path / "own.toml", write_colour_images(tmp_path / "other", n_per_class=10, size=32)
    own.write_text(
        'published = ""\nmeasured = ""\nentry_point = "train"\n[arguments]\nepochs = 1\n'
        '[[variants]]\nname = "one"\n[[variants]]\nname = "other"\nseed = 1'
    )
    with pytest.raises(InputError, match=r"^1 failed, .*; the comparison on .*other: .* different test images"):
        reproduce.run(ReproduceConfig(name=str(own), data=str(data), overrides=f"{SMALL} backbone=resnet10_small"))
    (found,) = _reproduce_runs()
    lines = fetch_artifact(found.info.run_id, "results.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["one", "other"]
    assert fetch_artifact(found.info.run_id, "predictions.csv").is_file()


def test_a_reproduction_of_which_nothing_runs_says_why(parts: Path, tmp_path: Path, store: str) -> None:
    (tmp_path / "own.toml").write_text(KEEPS)
    with pytest.raises(InputError, match=r"^'keeps' on .*parts: expected norm_statistics auto or learn"):
        reproduce.run(
            ReproduceConfig(
                name=str(tmp_path / "own.toml"), data=str(parts), overrides=f"{SMALL} backbone=resnet10_small"
            )
        )


def test_a_row_does_not_carry_the_name_of_a_network_that_was_not_run() -> None:
    small, cinic = load_reproduction("small_sets"), load_reproduction("cinic_vgg16")
    assert list(plan_runs(small, "a", "random", "epochs=1,1")["a"]) == ["VGG16", "VGG19", "Inception v3", "Xception"]
    assert list(plan_runs(small, "a", "random", "backbone=resnet10")["a"]) == ["backbone=resnet10"]
    (config,) = plan_runs(small, "a", "random", "backbone=resnet10")["a"].values()
    assert (config.name, config.network.backbone) == ("backbone=resnet10", "resnet10")
    # Where each has weights of its own they stay apart; where the network is the reproduction's their names stay.
    own = plan_runs(small, "a", "w.pth,x.pth,y.pth,z.pth", "backbone=resnet10")["a"]
    assert [(name, of.network.weights) for name, of in own.items()][:2] == [
        ("VGG16, backbone=resnet10", "w.pth"),
        ("VGG19, backbone=resnet10", "x.pth"),
    ]
    assert list(plan_runs(cinic, "a", "random", "backbone=resnet10")["a"]) == list(cinic.variants)
    frozen = plan_runs(cinic, "a", "random", "freeze_depth=1")["a"]
    assert plan_runs(cinic, "a", "random", "weights=w.pth")["a"]["1 frozen"].network.weights == "w.pth"
    assert list(frozen)[:2] == ["1 frozen, freeze_depth=1", "2 augmented, freeze_depth=1"]
    assert len(frozen) == 3  # the fourth is then the third


def test_a_wrong_path_is_said_once_and_before_anything_runs(parts: Path, tmp_path: Path, store: str) -> None:
    with pytest.raises(InputError, match=r"^no data at '.*nowhere'"):
        reproduce.run(
            ReproduceConfig(name="cinic_vgg16", data=f"{parts},{tmp_path / 'nowhere'}", weights="missing.pth")
        )
    assert not _reproduce_runs()


def test_two_sets_of_one_name_are_told_apart() -> None:
    assert _titles({"a/set.zip": {}, "b/other.zip": {}}) == {"a/set.zip": "set", "b/other.zip": "other"}
    assert _titles({"a/set.zip": {}, "b/set.zip": {}}) == {"a/set.zip": "a/set.zip", "b/set.zip": "b/set.zip"}


def test_a_misspelt_reproduction_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"got 'cinic_vg16'; did you mean cinic_vgg16\?"):
        load_reproduction("cinic_vg16")


@pytest.mark.parametrize(
    ("weights", "overrides", "sentence"),
    [
        ("random", "epoch=1", r"train has no argument 'epoch'; did you mean epochs\?"),
        ("random", "epochs", "expected overrides as name=value, separated by spaces, got 'epochs'"),
        ("random", "epochs='1", "expected overrides as name=value"),
        ("random", "epochs=0", "expected epochs from 1 to 100000, got 0"),
        ("random,timm", "", "expected one value of weights, or one per variant .1 frozen, 2 augmented"),
        ("", "", "separated by commas, got ''"),
    ],
)
def test_what_does_not_fit_a_reproduction_is_refused_before_anything_runs(
    weights: str, overrides: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        plan_runs(load_reproduction("cinic_vgg16"), "anywhere", weights, overrides)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("entry_point = ", "is not a reproduction"),
        ('published = ""\nmeasured = ""', "expected train, finetune, got the entry point 'none'"),
        (
            'published = ""\nmeasured = ""\nentry_point = "search"',
            "expected train, finetune, got the entry point 'search'",
        ),
        (
            'published = ""\nmeasured = ""\nentry_point = "train"\nargs = 1',
            "expected arguments, .*, got the field args",
        ),
    ],
)
def test_a_file_that_is_no_reproduction_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_reproduction(str(tmp_path / "own.toml"))


def test_a_reproduction_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    text = 'entry_point = "train"\n[arguments]\nepochs = "1,2"\nmax_lr = 1e-2'
    (tmp_path / "own.toml").write_text(text)
    plan = plan_runs(load_reproduction(str(tmp_path / "own.toml")), "here,there", "random", "max_lr=1e-3")
    assert list(plan) == ["here", "there"]
    config = plan["there"]["own"]
    assert (config.data.data, config.name) == ("there", "own")
    assert [(stage.epochs, stage.max_lr) for stage in config.recipe.stages()] == [(1, 1e-3), (2, 1e-3)]
