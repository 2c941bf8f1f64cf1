"""Runs are found by their id, by a prefix of it, and as the last one of their kind."""

from __future__ import annotations

from collections.abc import Callable

import mlflow
import pytest
from mlflow.entities import Run

from pipelines.configs.fields import make_config
from pipelines.finetune import FinetuneConfig
from pipelines.inputs.run_ids import with_run_ids
from pipelines.store.find import find_run
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

MakeRun = Callable[..., str]


@pytest.fixture
def make_run(store: str) -> MakeRun:
    """Make a finished run of a kind with an id of its own, one second after the one before."""
    client, made = mlflow.MlflowClient(), []

    def make(kind: str, start: str = "", status: str = "FINISHED") -> str:
        while True:
            run = client.create_run(
                "0", start_time=1000 * (1 + len(made)), tags={"kind": kind}, run_name=f"{kind} {len(made)}"
            )
            if run.info.run_id.startswith(start):
                break
            client.delete_run(run.info.run_id)
        client.set_terminated(run.info.run_id, status)
        made.append(run.info.run_id)
        return str(run.info.run_id)

    return make


def of(run_id: str) -> Run:
    return mlflow.MlflowClient().get_run(run_id)


def test_a_prefix_finds_its_run(make_run: MakeRun) -> None:
    wanted, _ = make_run("fit"), make_run("fit")
    assert find_run(wanted[:8], "fit").info.run_id == wanted
    assert find_run(wanted, "fit").info.run_id == wanted


@pytest.mark.parametrize("text", ["abc", "no-such-run", "0000000000", ""])
def test_no_run_is_one_sentence_that_says_what_is_expected(text: str, store: str) -> None:
    with pytest.raises(InputError, match=r"no fit or train run .* expected an id, a prefix of one .*, or last"):
        find_run(text, "fit", "train")


def test_last_is_the_newest_finished_run_of_the_kind(make_run: MakeRun) -> None:
    make_run("fit")
    newest = make_run("fit")
    make_run("fit", status="FAILED")
    make_run("finetune")
    assert find_run("last", "fit").info.run_id == newest
    assert find_run("last", "fit", "finetune").data.tags["kind"] == "finetune"
    with pytest.raises(InputError, match="no export run 'last'"):
        find_run("last", "export")


def test_an_ambiguous_prefix_names_the_candidates(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_run("fit", start="a")
    second = make_run("fit", start="a")
    monkeypatch.setattr("pipelines.store.find._SHORTEST", 1)
    with pytest.raises(InputError, match="which several runs begin with") as refused:
        find_run("a", "fit")
    assert all(f"{run[:12]} ({of(run).info.run_name})" in str(refused.value) for run in (first, second))


def test_a_prefix_is_of_the_wanted_kind_where_only_one_is(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = make_run("fit", start="a"), make_run("export", start="a")
    monkeypatch.setattr("pipelines.store.find._SHORTEST", 1)
    assert find_run("a", "fit").info.run_id == wanted


def test_a_run_that_was_deleted_is_not_there(make_run: MakeRun) -> None:
    gone = make_run("fit")
    mlflow.MlflowClient().delete_run(gone)
    for text in (gone, gone[:8], "last"):
        with pytest.raises(InputError, match="no fit run"):
            find_run(text, "fit")


def test_a_config_gets_full_ids(make_run: MakeRun) -> None:
    pretrained, searched = make_run("pretrain"), make_run("search")
    config = make_config(FinetuneConfig, weights=pretrained[:6], search_run="last")
    full = with_run_ids(config, weights="pretrain", search_run="search")
    assert (full.network.weights, full.search_run) == (pretrained, searched)


@pytest.mark.parametrize("weights", ["random", "pixels", "timm", "timm:a1_in1k", "weights.pth"])
def test_weights_that_are_no_run_are_left_alone(weights: str) -> None:
    config = make_config(FinetuneConfig, weights=weights)
    assert with_run_ids(config, weights="pretrain", search_run="search") == config
