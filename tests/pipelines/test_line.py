"""The whole line on made pictures, once, and what must be true of its records."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.entities import Run

from pipelines import main, predict
from pipelines.configs.fields import make_config, with_values
from pipelines.finetune import FinetuneConfig
from pipelines.inputs.artifacts import CLASSIFIER_ARTIFACT
from pipelines.main import MainConfig
from pipelines.store.artifacts import fetch_artifact
from tests.conftest import COLOURS, own_store, write_colour_images
from tl_core.data.dataset import load_dataset
from tl_core.errors import InputError
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe, parse_recipe
from tl_core.recipes.pretrain import PretrainRecipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SHAPE = EpisodeShape(n_way=3, n_shot=3, n_query=5)
NAME = "colours"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run `main` on made colours; yields its run id and the folder of pictures."""
    with own_store(tmp_path_factory.mktemp("line")) as folder:
        data = write_colour_images(folder / "data")
        config = make_config(
            MainConfig,
            source=str(write_colour_images(folder / "source", seed=1)),
            target=str(data),
            image_size=16,
            shape=SHAPE,
            n_episodes=4,
            n_trials=3,
            name=NAME,
            recipe=PretrainRecipe(epochs=2, batch_size=16, augment="flip"),
        )
        yield main.run(config), data


def children(parent: str) -> list[Run]:
    import mlflow

    runs = mlflow.MlflowClient().search_runs([experiment_of(parent)], f"tags.`mlflow.parentRunId` = '{parent}'")
    return sorted(runs, key=lambda run: run.info.start_time)


def by_name(parent: str) -> list[Run]:
    """Nested runs that were worked on side by side, whose starts tell nothing of their order."""
    return sorted(children(parent), key=lambda run: str(run.info.run_name))


def experiment_of(run_id: str) -> str:
    import mlflow

    return str(mlflow.MlflowClient().get_run(run_id).info.experiment_id)


def child_of_kind(parent: str, kind: str, position: int = 0) -> Run:
    return [run for run in children(parent) if run.data.tags["kind"] == kind][position]


def test_the_steps_are_nested_in_their_order(line: tuple[str, Path]) -> None:
    kinds = [run.data.tags["kind"] for run in children(line[0])]
    searched = ["search", "finetune", "fit", "export", "register"]
    assert kinds == ["pretrain", "finetune", "finetune", "finetune", *searched]


def test_the_runs_are_named_by_their_data_and_weights(line: tuple[str, Path]) -> None:
    pretrained = child_of_kind(line[0], "pretrain").info.run_id[:8]
    assert [run.info.run_name for run in children(line[0])] == [
        "pretrain resnet10_small on source",
        "finetune data from pixels 3-shot",
        "finetune data from random resnet10_small 3-shot",
        f"finetune data from {pretrained} 3-shot",
        f"search data from {pretrained}",
        f"finetune data from {pretrained} searched 3-shot",
        f"fit data from {pretrained} searched",
        f"export of fit data from {pretrained} searched",
        f"register {NAME} v1",
    ]


def test_every_run_is_finished(line: tuple[str, Path]) -> None:
    import mlflow

    runs = mlflow.MlflowClient().search_runs([experiment_of(line[0])], max_results=1000)
    assert Counter(run.info.status for run in runs) == {"FINISHED": len(runs)}


def test_a_finetune_run_holds_one_nested_run_per_episode(line: tuple[str, Path]) -> None:
    finetune = child_of_kind(line[0], "finetune", -1)
    episodes = by_name(finetune.info.run_id)
    assert [run.info.run_name for run in episodes] == [f"episode-{i:04d}" for i in range(4)]
    accuracies = [run.data.metrics["query/accuracy"] for run in episodes]
    assert finetune.data.metrics["accuracy"] == pytest.approx(np.mean(accuracies))
    assert finetune.data.metrics["n_episodes"] == 4
    assert {"accuracy_ci95", "macro_precision", "macro_recall", "macro_f1"} <= finetune.data.metrics.keys()


def test_the_searched_run_uses_the_recipe_that_the_search_found(line: tuple[str, Path]) -> None:
    from pipelines.inputs.networks import find_recipe

    search = child_of_kind(line[0], "search")
    found = find_recipe(search.info.run_id, make_config(FinetuneConfig, weights="random").recipe)
    params = child_of_kind(line[0], "finetune", -1).data.params
    assert float(params["max_lr"]) == found.max_lr
    assert params["augment"] == found.augment
    assert len(children(search.info.run_id)) == 3
    import mlflow

    table = mlflow.artifacts.load_text(f"runs:/{search.info.run_id}/finalists.csv").splitlines()
    assert 2 <= len(table) <= 4  # a heading, the base recipe, at most two others


def test_methods_are_scored_on_the_same_episodes_and_searched_on_others(line: tuple[str, Path]) -> None:
    finetunes = [run for run in children(line[0]) if run.data.tags["kind"] == "finetune"]
    seeds = [[e.data.tags["seed"] for e in by_name(run.info.run_id)] for run in finetunes]
    assert all(s == seeds[0] for s in seeds)
    assert len({run.data.tags["episodes"] for run in finetunes}) == 1


def test_the_champion_loads_in_mlflow_and_agrees_with_predict(line: tuple[str, Path], tmp_path: Path) -> None:
    import mlflow

    output = tmp_path / "predictions.csv"
    config = predict.PredictConfig(model=f"models:/{NAME}@champion", images=str(line[1]), output=str(output))
    run_id = predict.run(config)
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    answers = mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(
        [Path(row["file"]).read_bytes() for row in rows]
    )
    assert list(answers["label"]) == [row["label"] for row in rows]
    assert answers["probability"].tolist() == pytest.approx([float(row["probability"]) for row in rows], abs=6e-5)
    right = np.mean([row["label"] == Path(row["file"]).parent.name for row in rows])
    assert right > 0.9
    assert "accuracy" not in mlflow.get_run(run_id).data.metrics, "it was made from these images"


def test_new_images_in_folders_of_classes_are_scored(line: tuple[str, Path], tmp_path: Path) -> None:
    import mlflow

    new = write_colour_images(tmp_path / "new", n_per_class=4, seed=9)
    (new / "red" / "learned.png").write_bytes((line[1] / "red" / "003.png").read_bytes())
    output = tmp_path / "predictions.csv"
    config = predict.PredictConfig(model=f"models:/{NAME}@champion", images=str(new), output=str(output))
    metrics = mlflow.get_run(predict.run(config)).data.metrics
    assert (metrics["n_images"], metrics["n_labelled"]) == (13, 12)
    assert metrics["accuracy"] > 0.9


def test_one_image_is_predicted_and_drawn(line: tuple[str, Path], tmp_path: Path) -> None:
    output, album = tmp_path / "predictions.csv", tmp_path / "album"
    image = line[1] / "red" / "003.png"
    model = f"models:/{NAME}@champion"
    predict.run(predict.PredictConfig(model=model, images=str(image), output=str(output), pictures=str(album)))
    with output.open() as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == str(image)
    assert (album / "001-003.png").stat().st_size > 1000


def test_the_model_says_how_good_its_champion_is_and_links_to_the_evidence(line: tuple[str, Path]) -> None:
    import mlflow

    said = mlflow.MlflowClient().get_registered_model(NAME).description
    assert "Of 100 images of data in 3-way 3-shot episodes, about " in said
    for kind in ("finetune", "fit", "export"):
        assert f"(#/experiments/0/runs/{child_of_kind(line[0], kind, -1).info.run_id}" in said


@pytest.mark.parametrize("kind", ["main", "finetune", "pretrain"])
def test_the_accuracy_has_the_same_names_on_every_kind_of_run(kind: str, line: tuple[str, Path]) -> None:
    import mlflow

    metrics = (mlflow.get_run(line[0]) if kind == "main" else child_of_kind(line[0], kind, -1)).data.metrics
    assert 0 <= metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"] <= 1


def test_the_file_says_of_itself_what_the_records_say(line: tuple[str, Path]) -> None:
    from registry.versions import resolve_onnx
    from serving.model import OnnxClassifier

    says = OnnxClassifier.load(resolve_onnx(f"models:/{NAME}@champion")).metadata
    scored, fitted = child_of_kind(line[0], "finetune", -1), child_of_kind(line[0], "fit")
    pretrained = child_of_kind(line[0], "pretrain")
    assert json.loads(says["class_names"]) == sorted(COLOURS)
    assert (says["image_size"], says["resize_rule"], says["opset"]) == ("16", "crop", "20")
    assert 0.3 < float(says["temperature"]) < 1  # all colours are told apart: surer than the plain logits
    assert (says["backbone"], says["weights"]) == ("resnet10_small", pretrained.info.run_id)
    assert (says["fit_run"], says["finetune_run"]) == (fitted.info.run_id, scored.info.run_id)
    assert json.loads(says["accuracy"]) == {
        "mean": pytest.approx(scored.data.metrics["accuracy"]),
        "ci95": pytest.approx(scored.data.metrics["accuracy_ci95"]),
        "n_episodes": 4,
    }
    assert says["episodes"] == scored.data.tags["episodes"]
    assert says["target_fingerprint"] == fitted.data.tags["target_fingerprint"]
    assert says["source_fingerprint"] == pretrained.data.tags["source_fingerprint"]
    assert says["version"]


def test_the_file_marks_images_that_look_like_none_of_the_classes(
    line: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from registry.versions import resolve_onnx
    from serving.model import OnnxClassifier
    from serving.tables import read_table
    from tl_core.heads.features import image_features
    from tl_core.heads.storage import load_classifier
    from tl_core.scoring.unlike import class_means, similarity

    model = OnnxClassifier.load(resolve_onnx(f"models:/{NAME}@champion"))
    fitted = child_of_kind(line[0], "fit").info.run_id
    classifier, description = load_classifier(fetch_artifact(fitted, CLASSIFIER_ARTIFACT))
    data = load_dataset(str(line[1]), 16)
    features = image_features(classifier, data.images, torch.device("cpu"))
    by_hand = similarity(features, class_means(features, data.labels, 3))
    found = model.predict_with_similarity(np.array(data.images))[1]
    assert found is not None
    np.testing.assert_allclose(found, by_hand, atol=1e-4)
    assert model.unlike_below == description.unlike_below
    assert model.unlike_below is not None

    unlike = int((found < model.unlike_below).sum())
    assert unlike <= 4  # of 60
    output = tmp_path / "predictions.csv"
    predict.run(predict.PredictConfig(model=f"models:/{NAME}@champion", images=str(line[1]), output=str(output)))
    assert f"60 images, {unlike} look like none of the classes, " in capsys.readouterr().out
    assert sum(row.unlike is True for row in read_table(output)) == unlike
    assert {row.unlike for row in read_table(output)} <= {True, False}


def test_a_file_that_does_not_answer_as_torch_does_is_not_kept_and_the_worst_image_named(
    line: tuple[str, Path], tmp_path: Path
) -> None:
    import mlflow

    from pipelines import export
    from pipelines.inputs.artifacts import SAMPLES_ARTIFACT
    from pipelines.store.artifacts import fetch_artifact

    fit_run = child_of_kind(line[0], "fit").info.run_id
    path = fetch_artifact(fit_run, SAMPLES_ARTIFACT)
    whole = path.read_bytes()
    with np.load(path) as samples:
        images = samples["images"]
    images[7] = 255 - images[7]  # torch is now shown another picture than the file holds
    np.savez_compressed(path, images=images)
    try:
        with pytest.raises(InputError, match=r"was not kept: .* the worst image is .*samples.zip/blue/007.png"):
            export.run(export.ExportConfig(run=fit_run))
    finally:
        path.write_bytes(whole)
    (failed,) = mlflow.search_runs(
        [experiment_of(line[0])], "attributes.status = 'FAILED' AND tags.kind = 'export'", output_format="list"
    )
    assert not mlflow.MlflowClient().list_artifacts(failed.info.run_id)


def test_an_int8_variant_lies_beside_the_file(line: tuple[str, Path]) -> None:
    import mlflow

    from pipelines import export
    from pipelines.inputs.artifacts import INT8_ARTIFACT, ONNX_ARTIFACT
    from pipelines.store.artifacts import fetch_artifact

    run_id = export.run(export.ExportConfig(run=child_of_kind(line[0], "fit").info.run_id, int8=True))
    whole, small = fetch_artifact(run_id, ONNX_ARTIFACT), fetch_artifact(run_id, INT8_ARTIFACT)
    assert small.stat().st_size < 0.4 * whole.stat().st_size
    assert mlflow.MlflowClient().get_run(run_id).data.metrics["int8/equal_argmax"] >= 0.99


def test_a_second_registration_is_decided_by_the_gate(line: tuple[str, Path]) -> None:
    import mlflow

    from pipelines import export, fit, register

    worse = child_of_kind(line[0], "finetune", 1).info.run_id
    fit_run = fit.run(
        make_config(fit.FitConfig, target=str(line[1]), weights="random", image_size=16, features="stages")
    )
    export_run = export.run(export.ExportConfig(run=fit_run))
    run_id = register.run(register.RegisterConfig(run=export_run, finetune_run=worse, name=NAME, tolerance=0.0))
    tags = mlflow.MlflowClient().get_run(run_id).data.tags
    assert tags["promoted"] == "False"
    assert "against champion version 1" in tags["gate"]
    assert mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion").version == 1


def test_a_searched_recipe_may_not_be_reported_on_what_the_search_saw(line: tuple[str, Path]) -> None:
    from pipelines import finetune

    search = child_of_kind(line[0], "search").info.run_id
    config = make_config(FinetuneConfig, target=str(line[1]), weights="random", shape=SHAPE, search_run=search)
    with pytest.raises(InputError, match=f"search run {search} has seen 30 of the 60 images to report on"):
        finetune.run(with_values(config, part="all"))


def test_a_backbone_may_not_be_scored_on_its_own_source(line: tuple[str, Path]) -> None:
    from pipelines import finetune

    pretrain = child_of_kind(line[0], "pretrain")
    source = line[1].parent / "source"
    config = make_config(FinetuneConfig, target=str(source), weights=pretrain.info.run_id, shape=SHAPE)
    with pytest.raises(InputError, match="has seen 30 of the 30 images to report on"):
        finetune.run(config)


def test_source_and_target_may_not_share_images(line: tuple[str, Path]) -> None:
    config = make_config(MainConfig, source=str(line[1]), target=str(line[1]), image_size=16, shape=SHAPE)
    with pytest.raises(InputError, match="source and target share 60 images"):
        main.run(config)


def test_scores_of_another_classifier_are_no_evidence(line: tuple[str, Path]) -> None:
    from pipelines import register

    export_run = child_of_kind(line[0], "export").info.run_id
    other = child_of_kind(line[0], "finetune", 0).info.run_id
    with pytest.raises(InputError, match="scored another network than fit run"):
        register.run(register.RegisterConfig(run=export_run, finetune_run=other, name=NAME))


def test_runs_on_the_same_episodes_are_compared(line: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    import mlflow

    from pipelines import compare

    ids = [run.info.run_id for run in children(line[0]) if run.data.tags["kind"] == "finetune"][:3]
    run_id = compare.run(compare.CompareConfig(runs=", ".join(ids)))
    table = mlflow.artifacts.load_text(f"runs:/{run_id}/differences.csv").splitlines()
    assert table[0] == "first,second,difference,low,high,n_images,p,p_holm,episodes_difference,episodes_ci95"
    assert len(table) == 4
    assert "3 runs, 3 pairs" in capsys.readouterr().out
    report = mlflow.artifacts.load_text(f"runs:/{run_id}/report.html")
    for name in ("pixels", "resnet10_small, random"):
        assert f">{name}" in report
    assert report.count("points") > 0


def test_runs_on_other_episodes_are_not_compared(line: tuple[str, Path]) -> None:
    from pipelines import compare, finetune

    known = child_of_kind(line[0], "finetune", 0).info.run_id
    config = make_config(
        FinetuneConfig, target=str(line[1]), weights="pixels", image_size=16, shape=SHAPE, n_episodes=2, seed=9
    )
    other = finetune.run(config)
    with pytest.raises(InputError, match="were scored on different episodes"):
        compare.run(compare.CompareConfig(runs=f"{known},{other}"))
    with pytest.raises(InputError, match="two or more different finetune runs"):
        compare.run(compare.CompareConfig(runs=f"{known},{known}"))


@pytest.mark.parametrize(("until_ci", "n"), [(100.0, 20), (0.0, 22)])
def test_episodes_stop_once_the_interval_is_small_enough(line: tuple[str, Path], until_ci: float, n: int) -> None:
    import mlflow

    from pipelines import finetune

    config = make_config(
        FinetuneConfig,
        target=str(line[1]),
        weights="pixels",
        image_size=16,
        shape=SHAPE,
        n_episodes=22,
        until_ci=until_ci,
    )
    assert mlflow.MlflowClient().get_run(finetune.run(config)).data.metrics["n_episodes"] == n


def test_a_study_is_not_continued_on_other_episodes(line: tuple[str, Path]) -> None:
    from pipelines import search

    study = child_of_kind(line[0], "search").data.tags["study"]
    config = make_config(
        search.SearchConfig,
        target=str(line[1]),
        weights="random",
        image_size=16,
        shape=SHAPE,
        n_episodes=3,
        n_trials=4,
        study=study,
    )
    with pytest.raises(InputError, match=f"study {study} was begun with network="):
        search.run(config)


def test_auto_is_settled_before_the_episodes_and_logged(line: tuple[str, Path]) -> None:
    import mlflow

    from pipelines import finetune

    recipe = FinetuneRecipe(freeze_depth=0.5, steps=2, max_lr="auto")
    run_id = finetune.run(
        make_config(
            FinetuneConfig,
            target=str(line[1]),
            weights="random",
            backbone="resnet10_small",
            image_size=16,
            shape=SHAPE,
            n_episodes=2,
            recipe=recipe,
        )
    )
    settled = parse_recipe(Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/recipe.json")).read_text())
    logged = mlflow.MlflowClient().get_run(run_id).data.metrics["max_lr"]
    assert settled.max_lr == pytest.approx(logged)


def test_a_folder_with_few_images_is_scored_as_it_is(
    line: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    from pipelines import finetune

    few = write_colour_images(tmp_path / "few", n_per_class=4, size=16)
    run_id = finetune.run(make_config(FinetuneConfig, target=str(few), weights="pixels", image_size=16, n_episodes=3))
    data = mlflow.MlflowClient().get_run(run_id).data
    assert {"n_way": 3, "n_shot": 2, "n_query": 2}.items() <= json.loads(data.tags["episodes"]).items()
    assert 6 <= data.metrics["n_images"] <= 12
    assert "3-way 2-shot with 2 queries, from" in capsys.readouterr().out


def test_the_summary_says_what_the_runs_have_logged(line: tuple[str, Path]) -> None:
    import mlflow

    text = Path(mlflow.artifacts.download_artifacts(f"runs:/{line[0]}/summary.txt")).read_text()
    for position, method in enumerate(["raw pixels", "untrained", "pretrained", "pretrained + searched"]):
        logged = child_of_kind(line[0], "finetune", position).data.metrics
        interval = f"{100 * logged['accuracy']:.2f} +- {100 * logged['accuracy_ci95']:.2f} %"
        row = f"{method} {interval} (n={logged['n_episodes']:.0f})"
        assert row in " ".join(text.split())


def test_every_step_with_an_answer_has_a_report_that_says_it(line: tuple[str, Path], tmp_path: Path) -> None:
    import mlflow

    from pipelines import report

    searched = child_of_kind(line[0], "finetune", -1)
    score = f"{100 * searched.data.metrics['accuracy']:.1f} %"
    headlines = {}
    for run_id in [line[0], *(run.info.run_id for run in children(line[0]) if run.data.tags["kind"] in report_kinds())]:
        output = tmp_path / f"{run_id}.html"
        report.run(report.ReportConfig(run=run_id, output=str(output)))
        text = output.read_text()
        logged = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report.html")).read_text()
        assert run_id in text
        assert text.count("<section") == logged.count("<section") >= 3
        headlines[run_id] = text.split('class="headline">')[1].split("</p>")[0]
    assert len(headlines) == 7
    assert headlines[searched.info.run_id].startswith(f"{score} ± ")
    assert headlines[line[0]].startswith(f"{score} ± ")
    assert "the raw pixels" in headlines[line[0]]
    assert "test images of the source" in headlines[child_of_kind(line[0], "pretrain").info.run_id]


def report_kinds() -> tuple[str, ...]:
    from pipelines.reports.build import KINDS

    return KINDS


def test_two_classes_of_three_pictures_make_a_classifier(
    line: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    folder = write_colour_images(tmp_path / "few", n_per_class=3, size=16)
    shutil.rmtree(folder / "blue")
    backbone = child_of_kind(line[0], "pretrain").info.run_id
    config = make_config(MainConfig, target=str(folder), weights=backbone, n_episodes=3, shots="auto", name="few")
    run_id = main.run(config)
    said = capsys.readouterr().out
    assert Counter(run.data.tags["kind"] for run in children(run_id)) == {
        "finetune": 3 + 2,  # three methods; episodes with one labelled image per class, and with two
        "fit": 1,
        "export": 1,
        "register": 1,
    }
    curve = mlflow.MlflowClient().get_metric_history(run_id, "shots/accuracy")
    assert [point.step for point in curve] == [1, 2]
    for words in (
        "no search: that takes 20 images of each class",
        "   1 labelled image per class: ",
        "   2 labelled images per class: ",
        "From 1 to 2 labelled images",
    ):
        assert words in said
    report = mlflow.artifacts.load_text(f"runs:/{run_id}/report.html")
    assert "than the raw pixels" in report or "different from the raw pixels" in report
    assert "More images" in report
    assert "/onnx/classifier.onnx</td>" in report
    assert "From 1 to 2 labelled images" in report
    note = mlflow.MlflowClient().get_run(run_id).data.tags["mlflow.note.content"]
    assert note.startswith("**")
    assert "over 3 episodes" in note


def test_a_backbone_of_digits_is_not_praised_for_pictures(
    line: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    with mlflow.start_run():
        main._check_source(load_dataset(str(line[1]), 32), make_config(MainConfig, target=str(line[1])))
    assert "warning: the backbone has seen nothing but handwritten digits" in capsys.readouterr().err
