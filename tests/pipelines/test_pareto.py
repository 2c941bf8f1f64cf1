"""The front of several networks as its users get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import pareto
from pipelines.configs.fields import make_config, with_values
from pipelines.pareto import ParetoConfig
from tl_core.errors import InputError
from tl_core.recipes.episode import EpisodeShape

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.slow
def test_every_trial_is_a_nested_run_and_the_front_a_table(
    store: str, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("TRANSFER_LAB_CACHE", str(tmp_path / "cache"))
    config = make_config(
        ParetoConfig,
        target=str(colours),
        weights="resnet10_small=random, resnet10=random",
        image_size="16",
        shape=EpisodeShape(3, 2, 3),
        n_trials=2,
        n_episodes=3,
    )
    run_id = pareto.run(config)
    client = mlflow.MlflowClient(store)
    run = client.get_run(run_id)
    trials = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert len(trials) == run.data.metrics["n_trials"] == 2
    assert all(trial.data.metrics["seconds_per_image"] > 0 for trial in trials)
    table = mlflow.artifacts.load_text(f"runs:/{run_id}/pareto.csv").splitlines()
    assert table[0].startswith("network,image_size,features,test_views,l2,accuracy")
    assert len(table) - 1 == run.data.metrics["n_front"] >= 1
    assert "plots/pareto_front.html" in [file.path for file in client.list_artifacts(run_id, "plots")]

    goes_on = with_values(config, study=run.data.tags["study"], n_trials=3)
    again = pareto.run(goes_on)
    assert len(client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{again}'")) == 1
    assert client.get_run(again).data.metrics["n_trials"] == 3
    full = pareto.run(goes_on)
    assert mlflow.artifacts.load_text(f"runs:/{full}/pareto.csv") == mlflow.artifacts.load_text(
        f"runs:/{again}/pareto.csv"
    )
    with pytest.raises(InputError, match="was begun with n_episodes=3, not 4"):
        pareto.run(with_values(goes_on, n_episodes=4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"weights": " ,"}, "weights is empty"), ({"weights": "a", "image_size": "64,big"}, "got '64,big'")],
)
def test_bad_input(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_config(ParetoConfig, **arguments)  # type: ignore[arg-type]
