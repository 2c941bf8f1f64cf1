"""What a killed process has done is not done again, and what it left open is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch

from pipelines.configs.fields import ROOT
from pipelines.results.scores import EPISODES_ARTIFACT
from pipelines.store.journal import append_journal, read_journal
from tests.conftest import write_colour_images
from tests.pipelines.store.test_store import _environment
from tests.tl_core.fewshot.test_finetuner import LINEAR_PROBE, NOISE, PIXELS, answers, draw, tuner
from tl_core.data.dataset import load_dataset
from tl_core.data.episodes import build_pool, sample_episode
from tl_core.fewshot.finetuner import Finetuner
from tl_core.fewshot.parallel import run_episodes
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

N_EPISODES = 8


def config(data: Path) -> list[str]:
    options = (
        "--weights random --image_size 16 --n_way 3 --n_shot 3 --n_query 5 --freeze_depth 0 --workers 1 --steps 10 "
        "--max_lr 1e-2"
    )
    return [
        *[sys.executable, "-m", "pipelines.finetune", "--target", str(data), "--n_episodes", str(N_EPISODES)],
        *options.split(),
    ]


def losses(client: mlflow.MlflowClient, run_id: str) -> list[float]:
    folder = client.get_run(run_id).info.artifact_uri
    assert folder is not None
    return pd.read_parquet(Path(folder.removeprefix("file://"), EPISODES_ARTIFACT))["loss"].tolist()


def undisturbed_losses(data: Path) -> list[float]:
    """What the same episodes give in a process that nobody kills."""
    spec = BackboneSpec("resnet10_small", 16)
    dataset = load_dataset(str(data), 16)
    finetuner = Finetuner(build_backbone(spec, seed=0), spec, dataset, torch.device("cpu"))
    pool = build_pool(dataset, "report")
    episodes = [sample_episode(pool, EpisodeShape(3, 3, 5), 0, index) for index in range(N_EPISODES)]
    return [result.loss for result in run_episodes(finetuner, episodes, FinetuneRecipe(freeze_depth=0.0, steps=10), 1)]


def test_a_killed_finetune_is_finished_and_its_runs_are_closed(tmp_path: Path) -> None:
    data = write_colour_images(tmp_path / "data", n_per_class=20, size=16)
    environment = _environment(tmp_path)
    journals = tmp_path / "cache" / "checkpoints"
    process = subprocess.Popen(config(data), cwd=ROOT, env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and sum(len(p.read_text().splitlines()) for p in journals.glob("*.jsonl")) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (journal,) = journals.glob("*.jsonl")
    before = [line for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert 3 <= len(before) < N_EPISODES
    subprocess.run(config(data), cwd=ROOT, env=environment, check=True)

    client = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"])
    runs = client.search_runs(["0"], order_by=["attributes.start_time ASC"])
    parents = [run for run in runs if run.data.tags["kind"] == "finetune"]
    assert [run.info.status for run in parents] == ["KILLED", "FINISHED"]
    assert [run for run in runs if run.info.status == "RUNNING"] == []
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents[1].info.run_id]
    assert sorted(r.info.run_name for r in children) == [f"episode-{i:04d}" for i in range(N_EPISODES)]
    assert losses(client, parents[1].info.run_id) == undisturbed_losses(data)
    assert not journal.exists()


def test_a_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    episodes = draw(NOISE, 4)
    results = list(tuner(PIXELS).run_episodes(episodes, LINEAR_PROBE))
    for result in results[:3]:
        append_journal(tmp_path / "j", result)
    read = list(read_journal(tmp_path / "j", episodes))
    assert [answers(result) for result in read] == [answers(result) for result in results[:3]]
    assert [result.episode for result in read] == episodes[:3]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_half_a_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    episodes = draw(NOISE, 2)
    path = tmp_path / "j"
    for result in tuner(PIXELS).run_episodes(episodes, LINEAR_PROBE):
        append_journal(path, result)
    whole = path.read_bytes()
    os.truncate(path, len(whole) - cut)
    assert len(list(read_journal(path, episodes))) == 1
    assert whole.startswith(path.read_bytes())
    assert path.read_bytes().endswith(b"\n")


def with_checksum(text: str) -> bytes:
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


DAMAGES = {
    "a flipped digit": lambda line: line.replace(b'"seconds": ', b'"seconds": 1'),
    "no checksum, as of earlier versions": lambda line: line.partition(b" ")[2],
    "a list": lambda line: with_checksum("[1, 2]"),
    "a number": lambda line: with_checksum("7"),
    "no object of metrics": lambda line: with_checksum('{"episode": 1, "metrics": 3}'),
    "a field is missing": lambda line: with_checksum(
        line.partition(b" ")[2].decode().replace("seconds", "minutes").strip()
    ),
    "a label is missing": lambda line: with_checksum(
        line.partition(b" ")[2].decode().replace('"labels": [0, ', '"labels": [').strip()
    ),
    "another episode": lambda line: with_checksum(
        line.partition(b" ")[2].decode().replace('"episode": 1', '"episode": 9').strip()
    ),
    "zeros": lambda line: b"\0" * (len(line) - 1) + b"\n",
    "no text": lambda line: b"\xff\xfe\n",
    "empty": lambda line: b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_line_that_does_not_hold_what_was_written_is_computed_again(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episodes = draw(NOISE, 3)
    for result in tuner(PIXELS).run_episodes(episodes, LINEAR_PROBE):
        append_journal(tmp_path / "j", result)
    first, second, third = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    changed = DAMAGES[damage](second)
    assert changed != second
    (tmp_path / "j").write_bytes(first + changed + third)
    assert [result.episode.index for result in read_journal(tmp_path / "j", episodes)] == [0]
    assert (tmp_path / "j").read_bytes() == first
    assert capsys.readouterr().err.startswith("warning: line 2 of ")


def test_without_a_journal_nothing_is_done(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "none", draw(NOISE, 1))) == []
