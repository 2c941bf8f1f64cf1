"""Reports: what they say, that they stand alone, and that nothing in them is taken for markup."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import mlflow
import numpy as np
import pytest
from matplotlib.figure import Figure

from pipelines.classify import ClassifyConfig
from pipelines.command_line.command import parse_config
from pipelines.configs.fields import flat_params, make_config, with_values
from pipelines.finetune import FinetuneConfig
from pipelines.report import ReportConfig
from pipelines.report import run as write_report
from pipelines.reports.charts import _VARIABLES, chart_style, make_chart
from pipelines.reports.log import log_report
from pipelines.reports.origin import command_of
from pipelines.reports.page import (
    Gallery,
    Matrix,
    Page,
    Picture,
    Section,
    Table,
    render_page,
)
from pipelines.reports.words import (
    join_words,
    say_difference,
    say_estimate,
    say_gain,
    say_interval,
    say_over_episodes,
    say_seconds,
)
from pipelines.results.figures import _COLOURS
from pipelines.results.predictions import CONFUSIONS_ARTIFACT, N_EXAMPLES, log_answers, read_answers, read_confusions
from pipelines.store.artifacts import fetch_artifact
from pipelines.store.params import log_given, log_params, used_params
from pipelines.store.runs import tracked_run
from tl_core.data.dataset import ImageDataset
from tl_core.errors import InputError
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import Estimate
from tl_core.scoring.images import Interval
from tl_core.scoring.paired import PairedDifference
from tl_core.training.staged import ImagePredictions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

BETTER = "better than b by 1.9 points (0.4 to 3.4 over 120 images)"
NASTY = '<script>alert("1")</script> & $x$'


class Elements(HTMLParser):
    """The elements of a page, their attributes and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def drawn(name: str, label: str = "words") -> Figure:
    with chart_style():
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="#0072b2", label=label)
        axes.fill_between([0, 1], [0, 1], clip_on=True)
        axes.legend()
        return make_chart(figure, name, NASTY, height=3)


@pytest.fixture
def page() -> str:
    parts = [
        drawn("first", NASTY),
        drawn("second"),
        Table(NASTY, [NASTY, "b"], [[NASTY, "2"]]),
        Table("facts", [], [["a", "b"]], folded=True),
        Matrix("shares", [NASTY, "b"], [[1.0, 0.0], [0.25, 0.75]]),
        Gallery(NASTY, [Picture(b"\xff\xd8", NASTY, [NASTY])]),
    ]
    return render_page(Page(NASTY, NASTY, [NASTY], [Section(NASTY, [NASTY], parts)]))


def test_what_users_have_named_is_shown_as_it_is_and_never_markup(page: str) -> None:
    elements = Elements(page)
    assert [tag for tag, _ in elements.found if tag == "script"] == ["script"]
    (script,) = re.findall("<script>(.*)</script>", page)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page, "no other script may run"
    # The title, head and headings 7; the charts 1 + 2; tables, matrix (its columns have numbers) and gallery 3 + 1 + 2.
    assert sum(NASTY in words for words in elements.words) == 7 + 3 + 6
    assert [attributes["alt"] for tag, attributes in elements.found if tag == "img"] == [NASTY]


def test_a_page_names_no_other_file(page: str) -> None:
    assert "http:" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "https:" not in page
    for _, attributes in Elements(page).found:
        for name in ("src", "href", "xlink:href", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_charts_on_one_page_share_no_id_and_have_the_colours_of_the_page(page: str) -> None:
    elements = Elements(page)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    used = re.findall(r'(?:url\(#|href="#)([^)"]+)', page)
    assert set(used) <= set(ids)
    assert "stroke: var(--blue)" in page
    assert not re.search(r"#(010203|c0c1c2|0072b2|000000)", page.split("</style>", 1)[1])


def test_a_label_with_a_control_character_is_drawn_without_it() -> None:
    assert [key.text for key in drawn("third", "tulip\x07red").legend] == ["tulipred"]
    with chart_style():
        figure = Figure()
        figure.suptitle("tulip\x07red")
        assert "tulipred" in make_chart(figure, "fourth", "", height=3).svg


def test_neither_palette_has_two_classes_in_one_colour(page: str) -> None:
    assert set(_COLOURS) <= set(_VARIABLES)
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)[:2]
    for palette in (light, dark):
        named = dict(re.findall(r"--(\w+): (#\w{6});", palette))
        assert len({named[_VARIABLES[colour]] for colour in _COLOURS}) == len(_COLOURS)


def test_a_chart_has_its_words_for_those_who_do_not_see_it(page: str) -> None:
    elements = Elements(page)
    charts = [attributes for tag, attributes in elements.found if attributes.get("role") == "img"]
    captions = {attributes.get("id") for tag, attributes in elements.found if tag == "figcaption"}
    assert len(charts) == 2
    assert {chart["aria-labelledby"] for chart in charts} <= captions


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (say_estimate(Estimate(0.8125, 0.0061, 0.07, 600)), "81.2 % ± 0.6 over 600 episodes"),
        (say_estimate(Estimate(0.8125, 0.00061, 0.07, 60000)), "81.25 % ± 0.06 over 60,000 episodes"),
        (say_estimate(Estimate(0.8, float("inf"), float("nan"), 1)), "80.0 % in one episode, too few for an interval"),
        (say_interval(Interval(0.9125, 0.897, 0.9261, 1400)), "91.2 % (89.7 to 92.6)"),
        (say_over_episodes(Estimate(-0.0194, 0.0041, 0.1, 600)), "± 0.41 over 600 episodes"),
        (say_over_episodes(Estimate(0.0194, float("inf"), float("nan"), 1)), "in one episode"),
        (
            say_difference(PairedDifference(0.0125, -0.0081, 0.0331, 0.2, 120), False, "± 0.44 over 200 episodes"),
            "+1.25 (-0.81 to +3.31) over 120 images, ± 0.44 over 200 episodes: not significantly different",
        ),
        (say_gain(PairedDifference(0.019, 0.004, 0.034, 0.01, 120), "b"), BETTER),
        (say_gain(PairedDifference(-0.019, -0.034, -0.004, 0.01, 120), "b"), BETTER.replace("better", "worse")),
        (
            say_gain(PairedDifference(0.01, -0.01, 0.03, 0.3, 120), "b"),
            "not significantly different from b (+1.0 points, -1.0 to +3.0 over 120 images)",
        ),
        (say_seconds(0.0042), "4 ms"),
        (say_seconds(1.44), "1.4 s"),
        (say_seconds(47.9), "48 s"),
        (say_seconds(720), "12 min"),
        (say_seconds(7500), "2 h 05 min"),
    ],
)
def test_numbers_are_said_as_people_say_them(said: str, expected: str) -> None:
    assert said == expected


def test_the_command_of_a_run_gives_its_config_again(store: str) -> None:
    recipe = FinetuneRecipe(max_lr=2e-4, augment="crop+flip")
    config = make_config(FinetuneConfig, target="my folder/it's; $x", weights="random", n_episodes=7, recipe=recipe)
    with tracked_run("finetune", config) as run_id:
        pass
    command = command_of(mlflow.MlflowClient().get_run(run_id))
    words = shlex.split(command)
    assert words[words.index("-e") + 1] == "finetune"
    given = [words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "-P"]
    assert "seed" not in dict(given)  # only what differs from the defaults
    arguments = [part for name, value in given for part in (f"--{name}", value)]
    assert parse_config(FinetuneConfig, arguments) == config


def test_a_value_that_was_chosen_is_chosen_again_by_the_command(store: str) -> None:
    """With the chosen size alone, the estimate would be another one."""
    config = make_config(ClassifyConfig, data="photos")
    with tracked_run("classify", config) as run_id:
        log_given({"image_size": 0})
        log_params(flat_params(with_values(config, image_size=128)))
    run = mlflow.MlflowClient().get_run(run_id)
    assert used_params(run)["image_size"] == "128"
    assert "image_size" not in command_of(run)


def test_values_that_mlflow_run_has_quoted_are_quoted_once(store: str) -> None:
    with mlflow.start_run() as run:
        mlflow.set_tag("kind", "finetune")
        mlflow.log_params({"target": "'my folder'", "weights": "random", "l2": "3e-3"})
    command = command_of(mlflow.MlflowClient().get_run(run.info.run_id))
    assert "-P target='my folder'" in command
    assert "l2" not in command  # another spelling of the default


def made_answers() -> tuple[ImageDataset, ImagePredictions]:
    """Two classes of 20 images, each asked twice; of class b, images 20 to 24 are always taken for a."""
    n = 40
    dataset = ImageDataset(
        name="made",
        class_names=("a", "b"),
        images=np.zeros((n, 8, 8, 3), dtype=np.uint8),
        labels=np.repeat([0, 1], n // 2),
        file_names=tuple(f"{row}.png" for row in range(n)),
        content_hashes=tuple(map(str, range(n))),
        fingerprint="f",
        unreadable=(),
        decoded=0,
    )
    rows = np.concatenate([np.arange(n), np.arange(n)])
    labels = dataset.labels[rows]
    predictions = np.where((rows >= 20) & (rows < 25), 0, labels)
    probabilities = (0.5 + rows / 100).astype(np.float32)
    return dataset, ImagePredictions(rows, labels, predictions, probabilities)


def test_kept_answers_say_what_was_answered(store: str) -> None:
    with mlflow.start_run() as run:
        log_answers(*made_answers(), "all")
    kept = read_answers(run.info.run_id)
    assert kept.confusions.tolist() == [[0, 0, 40], [1, 0, 10], [1, 1, 30]]
    recalls = kept.recalls()
    assert (recalls["a"].value, recalls["b"].value, recalls["b"].n) == (1.0, 0.75, 20)
    assert kept.images["n_asked"].tolist() == [2] * 40
    assert kept.images["content_hash"].tolist() == [str(row) for row in range(40)]
    wrong = kept.examples[kept.examples["label"] != kept.examples["prediction"]]
    assert wrong["file"].tolist() == [f"{row}.png" for row in (24, 23, 22, 21, 20)]  # the surest first, each once
    assert wrong["probability"].tolist() == pytest.approx([0.74, 0.73, 0.72, 0.71, 0.70])
    assert len(kept.examples) == 5 + N_EXAMPLES
    assert kept.examples["file"].is_unique
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in kept.examples["jpeg"])


def test_confusions_of_an_earlier_release_are_read_as_those_of_today() -> None:
    assert read_confusions({"counts": [[40, 0], [10, 30]]}).tolist() == [[0, 0, 40], [1, 0, 10], [1, 1, 30]]
    assert read_confusions({"counts": []}).shape == read_confusions({"confusions": []}).shape == (0, 3)


def test_confusions_of_ten_thousand_classes_take_a_line_each_that_occurs(store: str) -> None:
    dataset, answers = made_answers()
    dataset = replace(dataset, class_names=tuple(f"class {label}" for label in range(10_000)))
    with mlflow.start_run() as run:
        log_answers(dataset, answers, "all")
    assert fetch_artifact(run.info.run_id, CONFUSIONS_ARTIFACT).stat().st_size < 1e6  # 10,000 x 10,000 counts: 300 MB
    kept = read_answers(run.info.run_id)
    assert len(kept.class_names) == 10_000
    assert kept.confusions.tolist() == [[0, 0, 40], [1, 0, 10], [1, 1, 30]]


def test_a_report_that_cannot_be_written_costs_a_warning_and_no_run(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracked_run("finetune", make_config(FinetuneConfig, weights="random")) as run_id:
        log_report(run_id)
    assert f"warning: run {run_id} has no report (run {run_id} has no artifact" in capsys.readouterr().err
    assert mlflow.MlflowClient().get_run(run_id).info.status == "FINISHED"


def test_only_runs_that_have_something_to_report_are_reported(store: str) -> None:
    with mlflow.start_run() as run:
        mlflow.set_tag("kind", "fit")
    with pytest.raises(InputError, match=r"expected a run of kind main or classify.*of kind fit"):
        write_report(ReportConfig(run=run.info.run_id))


def test_of_many_names_the_first_are_said() -> None:
    assert join_words(["ants", "bees", "wasps"], 3) == "ants, bees and wasps"
    assert join_words(["ants", "bees", "wasps", "flies"], 3) == "ants, bees and 2 others"
    assert join_words(["ants"], 3) == "ants"
