"""The gate in the records: every decision with its reason, and the champion that follows from it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from pipelines import register, register_backbone, rollback
from pipelines.register import RegisterConfig
from registry.versions import champion_of
from tests.serving.conftest import CLASS_NAMES, METADATA, write_model
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

NAME = "colours"
PARITY = {"parity/max_difference": 1e-6, "parity/equal_argmax": 1.0, "parity/n_images": 66}
COST = {"megabytes": 45.0, "latency_ms": 20.0}
GOOD = (0.80, 0.85, 0.90, 0.82)
BETTER = (0.90, 0.96, 1.00, 0.93)
WORSE = (0.70, 0.76, 0.80, 0.71)
EPISODES = json.dumps({"pool": "p", "seed": 0, "n_way": 3, "n_shot": 5})
OTHERS = json.dumps({"pool": "q", "seed": 1, "n_way": 3, "n_shot": 5})
OTHER_SHAPE = json.dumps({"pool": "p", "seed": 0, "n_way": 2, "n_shot": 5})
N_IMAGES, N_ASKED = 400, 100
"""Images of an episode's pool, and episodes that asked for each."""


@dataclass(frozen=True)
class Runs:
    """Ids of the runs that `register` asks for."""

    export_run: str
    finetune_run: str


@pytest.fixture(autouse=True)
def _store(store: str) -> None:
    """A store of its own for every test."""


def record(kind: str, params: dict[str, Any], metrics: dict[str, float], files: Path, **tags: str) -> str:
    """A finished run of one kind, as its entry point leaves it."""
    with mlflow.start_run() as run:
        mlflow.set_tags({"kind": kind, "network": "n", "recipe": "r", "target_fingerprint": "t", **tags})
        mlflow.log_params(params)
        mlflow.log_metrics(metrics)
        mlflow.log_artifacts(str(files))
    return str(run.info.run_id)


def prepared(
    accuracies: Sequence[float] | None = GOOD,
    episodes: str = EPISODES,
    recipe: str = "r",
    images: str = "",
    class_names: Sequence[str] = CLASS_NAMES,
    **measured: float | None,
) -> Runs:
    """What there is to register: a classifier, its export, and its scores, of which some may be missing.

    The images have the accuracies of the episodes in turn; `images` is what their content hashes begin with.
    """
    metrics = {name: value for name, value in {**PARITY, **COST, **measured}.items() if value is not None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fit_run = record("fit", {"weights": "b"}, {}, folder, recipe=recipe)
        (folder / "onnx").mkdir()
        lineage = {"backbone": "resnet10", "weights": "b", "fit_run": fit_run, "export_run": "e"}
        fingerprints = {"source_fingerprint": "s", "target_fingerprint": "t"}
        write_model(folder / "onnx" / "classifier.onnx", {**METADATA, **lineage, **fingerprints})
        export_run = record("export", {"run": fit_run}, metrics, folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = {"class_names": class_names, "counts": [[9, 1, 0], [0, 10, 0], [0, 0, 10]]}
        (folder / "confusion.json").write_text(json.dumps(counts))
        values = accuracies or GOOD
        pd.DataFrame({"episode": range(len(values)), "accuracy": values}).to_parquet(folder / "episodes.parquet")
        n_right = [round(N_ASKED * values[at % len(values)]) for at in range(N_IMAGES)]
        write_images(folder, n_right, N_ASKED, images)
        shape = {"n_way": 0, "n_shot": 0, "target": "photos", "head": "linear", "max_lr": "0.00125929"}
        scores = {"accuracy": sum(values) / len(values), "n_episodes": float(len(values))}
        finetune_run = record("finetune", shape, scores, folder, episodes=episodes, recipe=recipe)
    if accuracies is None:
        forget_scores(finetune_run)
    return Runs(export_run, finetune_run)


def trained(right: str | None, images: str = "") -> Runs:
    """A classifier that was trained with a test part: a 1 for each test image that it has right; None has no table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hits = pd.Series([hit == "1" for hit in right or "11"])
        table = {"content_hash": [f"{images}{position}" for position in hits.index], "label": "red"}
        table["prediction"] = hits.map({True: "red", False: "green"})
        pd.DataFrame(table).to_parquet(folder / "predictions.parquet")
        write_images(folder, [int(hit) for hit in hits], 1, images)
        (folder / "confusion.json").write_text(json.dumps({"class_names": CLASS_NAMES, "counts": []}))
        scores = {"test/accuracy": float(hits.mean()), "test/accuracy_low": 0.0, "n_test": float(len(hits))}
        scores |= {"accuracy": float(hits.mean()), "accuracy_low": 0.758, "accuracy_high": 0.836}
        params = {"data": "photos", "weights": "timm", "head": "dense"}
        train_run = record("train", params, scores, folder, test_images="of the run")
    if right is None:
        forget_scores(train_run)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "onnx").mkdir()
        lineage = {"backbone": "resnet34", "weights": "timm", "source_fingerprint": "", "target_fingerprint": "t"}
        write_model(folder / "onnx" / "classifier.onnx", {**METADATA, **lineage})
        return Runs(record("export", {"run": train_run}, {**PARITY, **COST}, folder), "")


def write_images(folder: Path, n_right: Sequence[int], n_asked: int, prefix: str = "") -> None:
    """The table of scores by image, as a run keeps it; no image is a near-duplicate of another."""
    hashes = [f"{prefix}{position}" for position in range(len(n_right))]
    table = {"content_hash": hashes, "group": range(len(n_right)), "n_asked": n_asked, "n_right": n_right}
    pd.DataFrame(table).to_parquet(folder / "images.parquet")


def forget_scores(run_id: str) -> None:
    """Damage the tables of scores."""
    uri = mlflow.MlflowClient().get_run(run_id).info.artifact_uri
    assert uri is not None
    for table in Path(uri.removeprefix("file://")).glob("*.parquet"):
        table.write_text("no table")


def registered(runs: Runs, **options: Any) -> dict[str, str]:
    """Register and return the tags of the run."""
    config = RegisterConfig(run=runs.export_run, finetune_run=runs.finetune_run, name=NAME, **options)
    return dict(mlflow.MlflowClient().get_run(register.run(config)).data.tags)


def champion() -> int:
    found = champion_of(NAME)
    return int(found.version) if found else 0


REFUSALS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"accuracies": GOOD}, {"tolerance": 0.0}, " points worse (0.00 worse is allowed)"),
    ({"accuracies": WORSE}, {}, " points worse (1.00 worse is allowed)"),
    ({"accuracies": None}, {}, "the challenger's scores cannot be read"),
    ({"accuracies": BETTER, "images": "other"}, {}, "challenger and champion version 1 share no image"),
    (
        {"accuracies": BETTER, "episodes": OTHER_SHAPE},
        {},
        "scored on 2-way 5-shot episodes, champion version 1 on 3-way",
    ),
    ({"accuracies": BETTER, "class_names": [*CLASS_NAMES, "wind"]}, {}, "has other classes (with wind)"),
    ({"accuracies": BETTER, "parity/equal_argmax": 0.99}, {}, "does not answer as torch does"),
    ({"accuracies": BETTER, "parity/similarity_difference": 0.01}, {}, "does not answer as torch does"),
    ({"accuracies": BETTER, "parity/n_images": 0}, {}, "does not answer as torch does"),
    ({"accuracies": BETTER, "parity/max_difference": None}, {}, "parity of the exported file cannot be read"),
    ({"accuracies": BETTER}, {"max_megabytes": 40.0}, "the file takes 45 MB, the budget is 40"),
    ({"accuracies": BETTER}, {"max_latency_ms": 10.0}, "the file takes 20 ms per image, the budget is 10"),
]


def test_every_refusal_is_logged_with_its_reason_and_the_champion_stays() -> None:
    first = registered(prepared())
    assert (first["gate"], first["promoted"], champion()) == ("there was no champion", "True", 1)
    for runs, options, reason in REFUSALS:
        tags = registered(prepared(**runs), **options)
        assert reason in tags["gate"]
        assert (tags["promoted"], champion()) == ("False", 1)
        version = mlflow.MlflowClient().get_model_version(NAME, tags["version"])
        assert (version.tags["gate"], version.tags["promoted"]) == (tags["gate"], "False")
        assert version.aliases == ["challenger"]


@pytest.mark.parametrize(
    ("accuracies", "reason"),
    [
        (BETTER, "against champion version 1 +10.50 points on 400 shared images; it is at least "),
        (GOOD, "+0.00 points on 400 shared images; it is at most 0."),
    ],
)
def test_a_promotion_is_logged_with_its_reason(accuracies: tuple[float, ...], reason: str) -> None:
    registered(prepared())
    tags = registered(prepared(accuracies))
    assert reason in tags["gate"]
    assert (tags["promoted"], champion()) == ("True", 2)
    assert mlflow.MlflowClient().get_model_version(NAME, "2").tags["promoted"] == "True"


@pytest.mark.parametrize("others", [0, 1])
def test_an_interrupted_registration_is_decided_again_as_it_was(others: int) -> None:
    for _ in range(others):
        registered(prepared())
    runs = prepared(BETTER)
    first = registered(runs)
    (run,) = mlflow.search_runs(
        filter_string=f"tags.version = '{others + 1}' and tags.kind = 'register'",
        search_all_experiments=True,
        output_format="list",
    )
    mlflow.MlflowClient().set_terminated(run.info.run_id, "KILLED")
    mlflow.MlflowClient().update_registered_model(NAME, "An image classifier.")  # before the champion was described
    again = registered(runs)
    assert [again[name] for name in ("gate", "promoted", "version")] == [
        first[name] for name in ("gate", "promoted", "version")
    ]
    assert champion() == others + 1
    said = mlflow.MlflowClient().get_registered_model(NAME).description
    assert said.startswith(f"**`@champion` is version {others + 1}.**")


def test_the_first_version_without_scores_is_no_champion() -> None:
    tags = registered(prepared(accuracies=None))
    assert (tags["gate"], tags["promoted"]) == ("the challenger's scores cannot be read", "False")
    assert champion() == 0


def test_a_champion_whose_scores_are_gone_stays() -> None:
    runs = prepared()
    registered(runs)
    forget_scores(runs.finetune_run)
    assert registered(prepared(BETTER))["gate"] == "the scores of champion version 1 cannot be read"
    assert champion() == 1


def test_a_version_carries_its_evidence_and_its_card() -> None:
    runs = prepared()
    tags = registered(runs)
    version = mlflow.MlflowClient().get_model_version(NAME, tags["version"])
    assert (version.tags["finetune_run"], version.tags["export_run"]) == (runs.finetune_run, runs.export_run)
    assert (version.tags["accuracy"], version.tags["megabytes"]) == ("0.8425", "45")
    for part in (
        "84.25 +- ",
        "red taken for green 10.0%",
        "3-way 5-shot episodes of photos",
        "max_lr 0.00126",
        runs.finetune_run,
    ):
        assert part in str(version.description)
    assert str(version.description).startswith("Accuracy 84.25 +- ")  # an earlier release kept no interval over images


RIGHT = "0111111110" * 40
OF_TRAIN_RUNS: list[tuple[dict[str, Any], bool, str]] = [
    ({"right": "0111111100" * 40}, False, "-10.00 points on 400 shared images; it may be up to 1"),
    ({"right": RIGHT}, True, "+0.00 points on 400 shared images; it is at most 0.9"),
    ({"right": "0111111111" * 40}, True, "+10.00 points on 400 shared images; it is at least "),
    (
        {"right": RIGHT[:100]},
        False,
        "with 100 images even a version that predicts exactly alike may be 3.62 points worse",
    ),
    ({"right": None}, False, "the challenger's scores cannot be read"),
    ({"right": "1" * 100, "images": "other"}, False, "share no image"),
]


@pytest.mark.parametrize(("accuracies", "promote"), [(BETTER, True), (WORSE, False)])
@pytest.mark.parametrize("change", [{"episodes": OTHERS}, {"recipe": "other"}], ids=["other_episodes", "other_recipe"])
def test_other_episodes_or_another_recipe_are_decided_by_the_images_that_both_have(
    accuracies: tuple[float, ...], promote: bool, change: dict[str, str]
) -> None:
    assert registered(prepared(GOOD * 3))["gate"] == "there was no champion"
    tags = registered(prepared(accuracies, **change))
    assert "points on 400 shared images" in tags["gate"]
    assert (tags["promoted"], champion()) == (str(promote), 2 if promote else 1)


def test_the_champions_before_the_present_one_count_too() -> None:
    for right in ("1" * 1000, "0" * 2 + "1" * 998):  # 0.2 points
        assert registered(trained(right))["promoted"] == "True"
    tags = registered(trained("0" * 6 + "1" * 994))
    assert tags["gate"].startswith("against champion version 1 -0.60 points on 1,000 shared images")
    assert (tags["promoted"], champion()) == ("False", 2)


def test_a_champion_of_an_earlier_release_is_refused_with_what_to_do() -> None:
    runs = prepared()
    registered(runs)
    uri = str(mlflow.MlflowClient().get_run(runs.finetune_run).info.artifact_uri)
    table = Path(uri.removeprefix("file://"), "images.parquet")
    pd.read_parquet(table).drop(columns=["content_hash", "group"]).to_parquet(table)
    assert registered(prepared(BETTER))["gate"] == (
        "the scores of champion version 1 have no content hashes of their images, as of an earlier release; repeat the "
        "run that made them and register it under another name"
    )
    assert champion() == 1


def test_a_former_champion_whose_version_was_deleted_ends_the_chain() -> None:
    for right in ("1" * 1000, "0" * 2 + "1" * 998):
        registered(trained(right))
    mlflow.MlflowClient().delete_model_version(NAME, "1")
    assert registered(trained("0" * 4 + "1" * 996))["promoted"] == "True"


@pytest.mark.parametrize(
    ("challenger", "promote", "reason"),
    OF_TRAIN_RUNS,
    ids=["worse", "equal", "better", "few_shared", "no_table", "other_images"],
)
def test_train_runs_are_compared_on_their_test_images(challenger: dict[str, Any], promote: bool, reason: str) -> None:
    first = registered(trained(RIGHT))
    assert (first["gate"], champion()) == ("there was no champion", 1)
    tags = registered(trained(**challenger))
    assert reason in tags["gate"]
    assert (tags["promoted"], champion()) == (str(promote), 2 if promote else 1)


def test_a_train_run_and_a_finetune_run_cannot_be_compared() -> None:
    registered(prepared())
    tags = registered(trained("1" * 100))
    assert "the challenger was scored on test images, champion version 1 on 3-way 5-shot episodes" in tags["gate"]
    assert champion() == 1


def test_a_version_of_a_train_run_carries_its_evidence_and_its_card() -> None:
    runs = trained(RIGHT)
    version = mlflow.MlflowClient().get_model_version(NAME, registered(runs)["version"])
    train_run = mlflow.MlflowClient().get_run(runs.export_run).data.params["run"]
    assert (version.tags["train_run"], version.tags["test_images"]) == (train_run, "of the run")
    assert (version.tags["accuracy"], version.tags["n_images"]) == ("0.8", "400")
    for part in ("80.00 % (75.80 to 83.63, n=400)", "the test images of photos", "red taken for green 20.0%"):
        assert part in str(version.description)
    assert f"train {train_run}" in str(version.description)
    headline = "Of 100 images like the 400 test images of photos, about 80 are named rightly: 75 to 84."
    assert str(version.description).startswith(f"{headline}\n\n[report](#/experiments/0/runs/{train_run}/artifacts/")
    assert "head dense" in str(version.description)


def test_the_run_that_scored_must_be_the_right_one() -> None:
    with pytest.raises(InputError, match="was scored on its own images, and not by a finetune run"):
        registered(Runs(trained(RIGHT).export_run, prepared().finetune_run))
    with pytest.raises(InputError, match="kept no image to be scored on; give the finetune_run"):
        registered(Runs(prepared().export_run, ""))
    assert champion() == 0


def test_of_two_equal_ones_registered_at_once_one_wins() -> None:
    registered(prepared(WORSE))
    both = [prepared(BETTER), prepared(BETTER)]
    with ThreadPoolExecutor(2) as threads:
        tags = list(threads.map(lambda runs: registered(runs, tolerance=0.0), both))
    assert sorted(t["promoted"] for t in tags) == ["False", "True"]
    (winner,) = (int(t["version"]) for t in tags if t["promoted"] == "True")
    assert champion() == winner
    assert sum("+0.00 points on 400 shared images" in t["gate"] for t in tags) == 1


def test_a_registry_that_is_down_promotes_nothing_and_leaves_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(prepared())
    runs, registry = prepared(BETTER), mlflow.get_registry_uri()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_registry_uri("http://127.0.0.1:9")
    with pytest.raises(InputError, match="refused or did not answer"):
        registered(runs)
    mlflow.set_registry_uri(registry)
    (failed,) = mlflow.search_runs(filter_string="attributes.status = 'FAILED'", output_format="list")
    assert "refused or did not answer" in failed.data.tags["error"]
    assert champion() == 1
    assert len(mlflow.MlflowClient().search_model_versions(f"name = '{NAME}'")) == 1


def test_a_rollback_restores_the_champion_before_and_says_why() -> None:
    registered(prepared())
    registered(prepared(BETTER))
    assert champion() == 2
    run_id = rollback.run(rollback.RollbackConfig(name=NAME, reason="wrong on the new camera"))
    assert champion() == 1
    tags = mlflow.MlflowClient().get_run(run_id).data.tags
    assert tags["gate"] == "rolled back to version 1: wrong on the new camera"
    left = mlflow.MlflowClient().get_model_version(NAME, "2")
    assert (left.tags["promoted"], left.tags["gate"]) == ("False", tags["gate"])


def test_a_backbone_is_registered_with_what_it_is() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "backbone").mkdir()
        (folder / "backbone" / "description.json").write_text("{}")
        params = {"backbone": "resnet10", "image_size": 64, "source": "train.tar"}
        metrics = {"test/accuracy": 0.5, "novel/5-way": 0.7, "novel/5-way_ci95": 0.01}
        pretrain_run = record("pretrain", params, metrics, folder, source_fingerprint="s")
    register_backbone.run(register_backbone.RegisterBackboneConfig(run=pretrain_run, name="b"))
    version = mlflow.MlflowClient().get_model_version("b", "1")
    assert "# resnet10 at 64 px" in str(version.description)
    assert "50.00 %" in str(version.description)
    assert "novel/5-way: 70.00 +- 1.00 %" in str(version.description)
    assert version.tags["pretrain_run"] == pretrain_run
    assert Path(mlflow.artifacts.download_artifacts("models:/b/1"), "description.json").is_file()


def marks() -> dict[str, str]:
    """The mark of each run that has one."""
    runs = mlflow.search_runs(filter_string="tags.champion LIKE '%'", output_format="list", run_view_type=ViewType.ALL)
    return {run.info.run_id: run.data.tags["champion"] for run in runs}


def test_the_run_of_the_champion_alone_is_marked_through_promotion_refusal_and_rollback() -> None:
    first, second = prepared(), prepared(BETTER)
    registered(first)
    assert marks() == {first.finetune_run: "colours v1"}
    registered(second)
    assert marks() == {second.finetune_run: "colours v2"}
    registered(prepared(WORSE))
    assert marks() == {second.finetune_run: "colours v2"}
    rollback.run(rollback.RollbackConfig(name=NAME))
    assert marks() == {first.finetune_run: "colours v1"}


def test_a_run_bears_the_marks_of_several_models_and_loses_only_that_of_the_one_that_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = prepared(), prepared(BETTER)
    for name in ("colours", "colours v1", "colours"):
        monkeypatch.setattr("tests.pipelines.test_register.NAME", name)
        registered(first)
    assert marks() == {first.finetune_run: "colours v1 v1 / colours v2"}
    registered(second)
    assert marks() == {first.finetune_run: "colours v1 v1", second.finetune_run: "colours v3"}


def test_a_mark_by_hand_stays() -> None:
    runs = prepared()
    mlflow.MlflowClient().set_tag(runs.finetune_run, "champion", "of my heart")
    registered(runs)
    registered(prepared(BETTER))
    assert marks()[runs.finetune_run] == "of my heart"


def test_a_deleted_run_is_not_marked_and_stops_nothing() -> None:
    first, second = prepared(), prepared(BETTER)
    registered(first)
    registered(second)
    for runs in (first, second):
        mlflow.MlflowClient().delete_run(runs.finetune_run)
    rollback.run(rollback.RollbackConfig(name=NAME))
    assert (champion(), first.finetune_run in marks()) == (1, False)
    assert registered(prepared(BETTER))["promoted"] == "False"  # its scores are gone with the run


def test_a_store_that_refuses_marks_costs_no_promotion(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(client: mlflow.MlflowClient, run_id: str, key: str, *rest: Any, **options: Any) -> None:
        if key == "champion":
            raise MlflowException("refused")
        set_tag(client, run_id, key, *rest, **options)

    set_tag = mlflow.MlflowClient.set_tag
    monkeypatch.setattr(mlflow.MlflowClient, "set_tag", refuse)
    assert (registered(prepared())["promoted"], champion(), marks()) == ("True", 1, {})


def test_a_version_that_was_deleted_leaves_no_second_mark() -> None:
    first, second = prepared(), prepared(BETTER)
    registered(first)
    mlflow.MlflowClient().delete_model_version(NAME, "1")
    registered(second)
    assert marks() == {second.finetune_run: "colours v2"}


@pytest.mark.parametrize(("kind", "marked"), [("main", "parent"), ("reproduce", "child")])
def test_the_row_that_shows_the_score_is_marked(kind: str, marked: str) -> None:
    runs = prepared()
    with mlflow.start_run() as parent:
        mlflow.set_tag("kind", kind)
    mlflow.MlflowClient().set_tag(runs.finetune_run, "mlflow.parentRunId", parent.info.run_id)
    registered(runs)
    row = {"parent": parent.info.run_id, "child": runs.finetune_run}[marked]
    assert marks() == {row: "colours v1"}
