"""A metric of an episode is defined once: journal, nested run, parent run and table follow."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import mlflow
import numpy as np
import pytest
from torch import Tensor

from pipelines.results.episode_log import EpisodeLog
from pipelines.results.scores import episodes_of
from pipelines.store.journal import append_journal, read_journal
from tests.tl_core.fewshot.test_finetuner import LINEAR_PROBE, PIXELS, SHAPE, draw, run, tuner
from tl_core.data.dataset import load_dataset
from tl_core.data.episodes import build_pool
from tl_core.fewshot.metrics import METRICS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def largest_logit(logits: Tensor, labels: Tensor) -> float:
    return float(logits.max())


def test_one_more_metric_reaches_every_record(
    colours: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "largest_logit", largest_logit)  # type: ignore[misc]
    dataset, journal = load_dataset(str(colours), 16), tmp_path / "j"
    results = run(tuner(PIXELS, dataset), draw(dataset, 3), LINEAR_PROBE)
    values = [result.metrics["largest_logit"] for result in results]
    with mlflow.start_run() as parent:
        log = EpisodeLog(dataset, build_pool(dataset, "all"), SHAPE, 0, LINEAR_PROBE, journal)
        for result in results:
            log.add(result)
        log.close(lambda rows: np.eye(len(rows), dtype=np.float32))
        for at, row in enumerate(np.concatenate([result.episode.query_rows for result in results])):
            known = log._neighbours_of(lambda rows: np.eye(len(rows), dtype=np.float32), at)
            support = results[at // len(results[0].labels)].episode.support_rows
            assert known._rows.tolist() == [*support, row]
    client = mlflow.MlflowClient()
    metrics = client.get_run(parent.info.run_id).data.metrics
    assert metrics["largest_logit"] == pytest.approx(np.mean(values))
    half_width = 4.302653 * np.std(values, ddof=1) / 3**0.5  # Student's t of two degrees of freedom
    assert metrics["largest_logit_ci95"] == pytest.approx(half_width, rel=1e-5)
    nested = client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(child.data.metrics["query/largest_logit"] for child in nested) == pytest.approx(sorted(values))
    assert episodes_of(parent.info.run_id)["largest_logit"].tolist() == values
    records = [json.loads(line.partition(" ")[2])["metrics"] for line in journal.read_text().splitlines()]
    assert [record["largest_logit"] for record in records] == values


def test_the_names_of_the_metrics_are_those_that_runs_have_always_had() -> None:
    assert list(METRICS) == ["accuracy", "loss", "macro_precision", "macro_recall", "macro_f1"]


def test_episodes_of_a_journal_with_other_metrics_are_run_again(colours: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(colours), 16)
    episodes = draw(dataset, 2)
    for result in run(tuner(PIXELS, dataset), episodes, LINEAR_PROBE):
        append_journal(tmp_path / "j", result)
    first, second = (tmp_path / "j").read_text().splitlines()
    older = {name: value for name, value in json.loads(second.partition(" ")[2]).items() if name != "metrics"} | {
        "accuracy": 1.0
    }
    text = json.dumps(older)
    (tmp_path / "j").write_text(f"{first}\n{zlib.crc32(text.encode()):08x} {text}\n")
    assert [result.episode.index for result in read_journal(tmp_path / "j", episodes)] == [0]
    assert (tmp_path / "j").read_text() == f"{first}\n"
