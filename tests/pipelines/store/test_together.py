"""Two commands in one checkout, one store and one cache at once: each gives what it gives alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mlflow
import pytest

from pipelines.configs.fields import ROOT
from tests.conftest import write_colour_images
from tests.pipelines.store.test_store import _environment
from tests.pipelines.test_resume import N_EPISODES, config, losses, undisturbed_losses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def test_commands_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    data = write_colour_images(tmp_path / "data", n_per_class=20, size=16)
    environment = _environment(tmp_path)
    # The second and the third are the same work: one of them must be refused, in a sentence.
    commands = [config(data), [*config(data), "--seed", "1"], [*config(data), "--seed", "1"]]
    running = [subprocess.Popen(c, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    answers = [(process.communicate()[1], process.returncode) for process in running]
    assert answers[0][1] == 0
    codes = sorted(code for _, code in answers[1:])
    assert codes in ([0, 2], [0, 0])  # the third may have started when the second had ended
    assert all("another process is at the same finetune" in text for text, code in answers if code == 2)
    client = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"])
    runs = list(client.search_runs(["0"]))
    assert [run for run in runs if run.info.status == "RUNNING"] == []
    parents = [r for r in runs if r.data.tags["kind"] == "finetune" and r.info.status == "FINISHED"]
    assert len(parents) == codes.count(0) + 1
    for parent in parents:
        children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert sorted(r.info.run_name for r in children) == [f"episode-{i:04d}" for i in range(N_EPISODES)]
    (first,) = [run for run in parents if run.data.params["seed"] == "0"]
    assert losses(client, first.info.run_id) == undisturbed_losses(data)
