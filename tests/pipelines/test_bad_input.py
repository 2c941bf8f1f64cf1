"""Bad input at every entry point: one sentence, exit code 2, no traceback, no run left RUNNING."""

from __future__ import annotations

import shutil
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from pipelines.command_line.command import run_command_line
from pipelines.configs.entry_points import config_type
from pipelines.configs.fields import make_config
from tests.conftest import write_colour_images

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

FEW = ["--n_way", "3", "--n_shot", "3", "--n_query", "5"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    """Work where relative paths of the cases mean made data."""
    monkeypatch.chdir(tmp_path)
    write_colour_images(Path("good"))
    Path("empty").mkdir()
    write_colour_images(Path("one_class"))
    for name in ("red", "green"):
        for file in Path("one_class", name).iterdir():
            file.unlink()
    write_colour_images(Path("text"))
    Path("text/red/note.jpg").write_text("this is no picture")
    write_colour_images(Path("truncated"))
    Image.new("RGB", (64, 64), "red").save("whole.jpg")
    Path("truncated/red/cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:300])
    Path("missing.csv").write_text("image,label\ngood/red/000.png,red\ngood/red/xyz.png,red\ngood/blue/000.png,blue\n")
    for part, seed in (("train", 0), ("test", 1)):
        write_colour_images(Path("parts", part), n_per_class=4, seed=seed)
    Path("parts/train/red").rename("parts/train/yellow")
    with zipfile.ZipFile("escaping.zip", "w") as archive:
        archive.writestr("../outside/red/a.png", b"")


def fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str) -> str:
    """Run a command line and return its one sentence."""
    import mlflow

    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as stop:
        run_command_line(config_type(name), import_module(f"pipelines.{name}").run)
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert not [run for run in client.search_runs(experiments) if run.info.status == "RUNNING"]
    return text


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("prepare --data nowhere", "no data at 'nowhere'"),
        ("prepare --data empty", "no images found in empty"),
        ("prepare --data one_class", "expected at least 2 classes"),
        ("prepare --data text", "not a png, jpg, webp, bmp, tif, gif or avif image"),
        ("prepare --data truncated", "cut.jpg"),
        ("prepare --data escaping.zip", "points outside the archive"),
        ("prepare --data whole.jpg", "expected a folder, an archive"),
        ("prepare --data good --image_size 0", "expected image_size from 8 to 1024, got 0"),
        ("pretrain --source good --backbone resnet999", "got 'resnet999'"),
        ("pretrain --source good --backbone inception_v3 --image_size 32", "cannot work on 32 x 32"),
        ("pretrain --source good --max_lr nan", "expected max_lr from 1e-09 to 100, got nan"),
        ("pretrain --source good --epochs 0", "expected epochs from 1 to 100000, got 0"),
        ("pretrain --source good --augment flipp", "joined by +, got 'flipp'"),
        ("train --data nowhere", "no data at 'nowhere'"),
        ("train --data good --split layout", "good is not laid out in parts"),
        ("train --data good --epochs 5,x", "separated by commas, got '5,x'"),
        ("train --data good --weights 0123", "no pretrain run '0123'"),
        ("train --data good --test_fraction 0.9", "expected test_fraction from 0.001 to 0.5, got 0.9"),
        ("train --data parts", "the test part of parts has classes that its training part lacks: red"),
        ("train --data missing.csv", "1 of 3 images in missing.csv cannot be read, the first is good/red/xyz.png"),
        ("reproduce --name cinic_vg16 --data good", "did you mean cinic_vgg16?"),
        ("reproduce --name cinic_vgg16 --data good --overrides epoch=1", "no argument 'epoch'; did you mean epochs?"),
        (
            "reproduce --name cinic_vgg16 --data good --overrides backbone=resnet10_small",
            "expected folders train, val and test (or columns of a csv) with the classes in them, got class "
            "folders alone",
        ),
        ("lr_find --source good --weight_decay nan", "expected weight_decay from 0 to 10, got nan"),
        ("finetune --target good --weights random --n_way 5", "n_way is 5, but the target has 3 classes"),
        (
            "finetune --target good --weights random --part report --n_shot 5 --n_query 15",
            "but n_shot + n_query is 20 (10 missing)",
        ),
        ("finetune --target good --weights random --freeze_depth 1.5", "expected freeze_depth from 0 to 1, got 1.5"),
        ("finetune --target good --weights random --max_lr nan", "expected max_lr from 1e-09 to 100, got nan"),
        ("search --target good --weights random --max_lr auto", "expected max_lr as a number"),
        ("finetune --target good --weights 0123", "no pretrain run '0123'"),
        ("search --target good --weights random --n_trials 0", "expected n_trials from 1 to 1e+06, got 0"),
        ("search --target good --weights random --minutes -1", "expected minutes from 0 to 1e+06, got -1.0"),
        (
            "search --target good --weights random --searched +",
            "joined by +, got '+' (nothing)",
        ),
        ("search --target good --weights random --searched depth", "unknown depth"),
        (
            "search --target good --weights random --searched max_lr",
            "solved, not trained; search freeze_depth too",
        ),
        ("search --target good --weights random --report_episodes 1", "expected report_episodes of 0"),
        (
            "search --target good --weights random --n_shot 5 --n_query 15",
            "but n_shot + n_query is 20 (10 missing)",
        ),
        ("fit --target good --weights random --search_run 0123", "no search run '0123'"),
        ("export --run 0123", "no fit or train or classify run '0123'"),
        ("register --run 0123 --finetune_run 0123", "no export run '0123'"),
        ("rollback --name none", "none has no champion, so there is nothing to roll back"),
        ("register_backbone --run 0123", "no pretrain run '0123'"),
        ("predict --model none.onnx --images good", "no model file at none.onnx"),
        ("predict --model models:/none@champion --images good", "no registered model models:/none@champion"),
        ("predict --model whole.jpg --images good", "not a readable ONNX model"),
        ("predict --model none.onnx --images good --output whole.jpg/out.csv", "cannot be written"),
        (
            "predict --model none.onnx --images good --min_probability nan",
            "expected min_probability from 0 to 1, got nan",
        ),
        ("predict --model none.onnx --images good --output out.txt", "must end in .csv, .jsonl or .parquet"),
        ("main --source good --target nowhere", "no data at 'nowhere'"),
    ],
)
def test_bad_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, sentence: str
) -> None:
    text = fails(capsys, monkeypatch, command)
    assert sentence in text
    assert text.startswith("error: ")
    assert text.count("\n") == 1


def test_a_run_of_another_kind_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import prepare

    run_id = prepare.run(make_config(prepare.PrepareConfig, data="good", image_size=16))
    text = fails(capsys, monkeypatch, f"finetune --target good --weights {run_id}")
    assert "expected a run of kind pretrain" in text


def test_files_that_are_not_named_like_images_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines import prepare

    folder = Path(shutil.copytree("good", "with_others"))
    first, *_ = sorted(folder.rglob("*.png"))
    first.rename(first.with_suffix(".txt"))
    (folder / ".hidden.txt").touch()
    prepare.run(make_config(prepare.PrepareConfig, data="with_others", image_size=16))
    named = first.with_suffix(".txt").relative_to(folder).as_posix()
    assert f"left out, not named like images: {named}\n" in capsys.readouterr().out


def test_an_unreadable_file_may_be_skipped() -> None:
    import mlflow

    from pipelines import prepare

    run_id = prepare.run(make_config(prepare.PrepareConfig, data="text", image_size=16, unreadable="skip"))
    metrics = mlflow.MlflowClient().get_run(run_id).data.metrics
    assert (metrics["n_images"], metrics["n_unreadable"]) == (60, 1)


def test_an_unknown_option_is_refused_with_the_near_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--n_way" in fails(capsys, monkeypatch, "finetune --target good --weights random --nway 3")
