"""A search as its users run it: several trials at a time, other classes in place of the target's, a killed worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines import search
from pipelines.configs.fields import make_config, with_values
from pipelines.search import SearchConfig
from pipelines.store.artifacts import fetch_artifact
from tests.conftest import own_store, write_colour_images
from tl_core.errors import InputError
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe

if TYPE_CHECKING:
    from mlflow.entities import Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SHAPE = EpisodeShape(3, 2, 3)
RECIPE = FinetuneRecipe(freeze_depth=0.5, steps=2)


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An own tracking store and an own file of studies."""
    with own_store(tmp_path_factory.mktemp("search")) as folder:
        write_colour_images(folder / "data")
        yield folder


def config(store: Path, **changes: Any) -> SearchConfig:
    base = make_config(
        SearchConfig,
        target=str(store / "data"),
        weights="random",
        image_size=16,
        shape=SHAPE,
        n_trials=6,
        n_episodes=6,
        final_episodes=3,
        report_episodes=4,
        workers=1,
        recipe=RECIPE,
    )
    return with_values(base, **changes)


def run_of(run_id: str) -> Run:
    import mlflow

    return mlflow.MlflowClient().get_run(run_id)


def trials_of(run_id: str) -> list[Run]:
    import mlflow

    experiment = run_of(run_id).info.experiment_id
    return list(mlflow.MlflowClient().search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'"))


@pytest.fixture(scope="module")
def two_at_a_time(store: Path) -> str:
    return search.run(config(store, workers=2))


def test_two_at_a_time_run_exactly_the_budget_each_as_a_nested_run(two_at_a_time: str) -> None:
    trials = trials_of(two_at_a_time)
    assert sorted(trial.info.run_name for trial in trials) == [f"trial-{number:04d}" for number in range(6)]
    assert {trial.info.status for trial in trials} == {"FINISHED"}
    metrics = run_of(two_at_a_time).data.metrics
    assert metrics["n_trials"] == 6
    spent = sum(trial.data.metrics["n_episodes"] for trial in trials if not trial.data.tags["copy_of"])
    assert metrics["episodes_saved"] == 6 * 6 - spent


def test_a_search_says_what_it_promised_and_what_was_kept(two_at_a_time: str) -> None:
    metrics = run_of(two_at_a_time).data.metrics
    for name in ("accuracy", "gain", "optimism", "report_accuracy", "report_gain", "report_optimism"):
        assert f"{name}_ci95" in metrics
    assert metrics["report_accuracy"] <= 1


def test_a_search_leaves_its_plots(two_at_a_time: str) -> None:
    import mlflow

    plots = {file.path for file in mlflow.MlflowClient().list_artifacts(two_at_a_time, "plots")}
    assert plots == {"plots/study.html", "plots/episodes.png"}
    page = mlflow.artifacts.load_text(f"runs:/{two_at_a_time}/plots/study.html")
    assert "<script src=" not in page
    assert page.count("plotly.js v") == 1  # its banner: the script is there, and once
    assert page.count("Plotly.newPlot(") >= 3


def test_the_study_opens_in_optuna(two_at_a_time: str, store: Path) -> None:
    import optuna

    name = run_of(two_at_a_time).data.tags["study"]
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{store / 'studies.db'}")
    assert len(study.trials) == 6
    assert study.best_trial.user_attrs["recipe"]["steps"] == 2


@pytest.mark.slow
def test_two_processes_propose_and_score_as_one_does_while_the_recipes_are_laid_down(
    two_at_a_time: str, store: Path
) -> None:
    """Five recipes are known beforehand; whoever scores them, their accuracies are the same to the last bit."""
    alone = search.run(config(store))

    def scores(run_id: str) -> dict[tuple[str, ...], tuple[float, float]]:
        keys = ("freeze_depth", "max_lr", "augment")
        of = {tuple(t.data.params[key] for key in keys): t.data.metrics for t in trials_of(run_id)}
        return {key: (m["n_episodes"], m["accuracy"]) for key, m in of.items() if m["n_episodes"] == 6}

    one, two = scores(alone), scores(two_at_a_time)
    assert len(one.keys() & two.keys()) >= 1
    assert all(one[key] == two[key] for key in one.keys() & two.keys())


def test_a_search_part_too_small_says_how_much_is_missing(store: Path) -> None:
    with pytest.raises(InputError, match=r"has 10 images .* n_shot \+ n_query is 14 \(4 missing\)"):
        search.run(config(store, shape=EpisodeShape(3, 6, 8)))


def test_a_study_goes_on_under_its_name_up_to_the_total(store: Path) -> None:
    first = search.run(config(store, study="mine", n_trials=2))
    second = search.run(config(store, study="mine", n_trials=3))
    third = search.run(config(store, study="mine", n_trials=3))
    assert [len(trials_of(run_id)) for run_id in (first, second, third)] == [2, 1, 0]
    counted = [run_of(run_id).data.metrics for run_id in (first, second, third)]
    assert [(m["n_trials"], m["n_trials_elsewhere"]) for m in counted] == [(2, 0), (3, 2), (3, 3)]
    page = fetch_artifact(third, "report.html").read_text()
    assert "3 trials (3 of them by other runs of this study) took" in page
