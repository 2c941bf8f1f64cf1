"""Figures are whole in a browser: no text leaves its figure, whatever a class is called, on a phone as on a desk."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from pipelines.reports.kinds.compare import difference_table, methods_section
from pipelines.reports.page import Page, Section, render_page
from pipelines.reports.predictions import answers_sections, features_section
from pipelines.reports.sections import curves_section, distribution_section, search_section, shots_section
from pipelines.reports.words import say_gain
from pipelines.results.figures import Curve
from pipelines.results.nearest import Neighbours
from pipelines.results.predictions import log_answers
from pipelines.results.thumbnails import thumbnail
from pipelines.store.logging import log_plots
from tests.browser import dump_dom, measure_page, needs_chromium, requests_of
from tl_core.data.dataset import ImageDataset
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import Estimate
from tl_core.scoring.paired import PairedDifference
from tl_core.training.staged import ImagePredictions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SCRIPT = Path(__file__).with_name("measure.js")
NAMES = tuple(
    (start * 40)[:40]
    for start in (
        "桜の花びら",
        "e\N{COMBINING ACUTE ACCENT}o\N{COMBINING DIAERESIS}",
        r"$\frac{x$",
        "<b>bold</b>",
        "W",
        "long words with spaces ",
        "קטן וגדול ",
        "_under_scored",
        "&amp;",
        "\N{GRINNING FACE}",
        "Größe Æ",
        "%d {0} \\n",
    )
)
N_EACH = 5
ELSEWHERE = "http://127.0.0.1:9/elsewhere"


def made_answers() -> tuple[ImageDataset, ImagePredictions]:
    """Twelve classes of five images, every third of which is taken for the next class."""
    n = N_EACH * len(NAMES)
    labels = np.repeat(np.arange(len(NAMES)), N_EACH)
    dataset = ImageDataset(
        name="made",
        class_names=NAMES,
        images=np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        labels=labels,
        file_names=tuple(f"{'folder' * 6}/{NAMES[label]}/{row:030d}.png" for row, label in enumerate(labels)),
        content_hashes=tuple(map(str, range(n))),
        fingerprint="f",
        unreadable=(),
        decoded=0,
    )
    rows = np.arange(n)
    predictions = np.where(rows % 3, labels, (labels + 1) % len(NAMES))
    return dataset, ImagePredictions(rows, labels, predictions, np.linspace(0.1, 1, n, dtype=np.float32))


def log_tables(dataset: ImageDataset) -> None:
    """Log the tables of a finetune run: episodes, and the feature map of the first one."""
    rng = np.random.default_rng(0)
    episodes = pd.DataFrame(
        {
            "episode": range(30),
            "classes": [list(NAMES)] * 30,
            "accuracy": rng.integers(10, 20, 30) / 20,
            "seconds": np.ones(30),
        }
    )
    shown = dataset.labels < 7
    places = {name: rng.random(int(shown.sum())) for name in ("x_before", "y_before", "x_after", "y_after")}
    features = {
        "label": [NAMES[label] for label in dataset.labels[shown]],
        "support": (np.arange(len(dataset.labels)) % N_EACH < 2)[shown],
        "jpeg": [thumbnail(image) for image in dataset.images[shown]],
        **places,
    }
    finalists = [{**asdict(FinetuneRecipe(l2=l2)), "search_accuracy": 0.7, "accuracy": 0.8 + l2} for l2 in (0.01, 0.1)]
    with tempfile.TemporaryDirectory() as folder:
        episodes.to_parquet(Path(folder, "episodes.parquet"))
        pd.DataFrame(features).to_parquet(Path(folder, "features.parquet"))
        pd.DataFrame(finalists).to_csv(Path(folder, "finalists.csv"), index=False)
        mlflow.log_artifacts(folder)


def log_trials() -> None:
    for number in range(12):
        with mlflow.start_run(run_name=f"trial-{number:04d}", nested=True):
            mlflow.set_tags({"kind": "trial", "state": "complete" if number % 3 else "stopped"})
            mlflow.log_metric("accuracy", 0.5 + 0.02 * number)
            mlflow.log_params(asdict(FinetuneRecipe(l2=0.1 * (12 - number))))


def made_sections() -> list[Section]:
    """One section of every kind that has a chart or long names, from the records of a run."""
    dataset, answers = made_answers()
    with mlflow.start_run() as run:
        rows = np.arange(len(dataset.labels))
        features = np.random.default_rng(1).random((len(rows), 8), dtype=np.float32)
        log_answers(dataset, answers, "all", lambda _: Neighbours(dataset, rows, features))
        log_tables(dataset)
        log_trials()
        mlflow.log_dict(asdict(FinetuneRecipe(l2=0.1)), "recipe.json")
        mlflow.log_param("searched", "l2+augment")
        mlflow.log_metrics({"n_trials": 12, "episodes_spent": 400, "optimism": 0.01})
        mlflow.set_tag("verdict", say_gain(PairedDifference(0.1, 0.05, 0.15, 0.01, 120), "the default recipe"))
    found = mlflow.MlflowClient().get_run(run.info.run_id)
    results = {name: Estimate(0.5 + 0.03 * i, 0.04, 0.1, 30) for i, name in enumerate(NAMES)}
    pairs = [[f"{a} - {b}", "+1.25 (-0.81 to +3.31) over 120 images"] for a, b in itertools.pairwise(NAMES)]
    curves = [Curve(name, [2.0, 1.0, 0.5], [0.2, 0.6, 0.9], [2.0, 1.5, 1.0], [0.2, 0.5, 0.8]) for name in NAMES[:6]]
    return [
        *answers_sections(found),
        features_section(found),
        distribution_section(found),
        methods_section(results, difference_table(pairs)),
        curves_section("Learning", curves, []),
        shots_section({n: Estimate(0.5, 0.1, 0.2, 30) for n in (1, 2, 5, 10, 20, 50, 100, 200)}),
        search_section(found),
    ]


@pytest.fixture
def page(store: str) -> str:
    return render_page(Page(NAMES[0], NAMES[4], list(NAMES), made_sections()))


@pytest.fixture
def measured(page: str, tmp_path: Path) -> list[dict[str, Any]]:
    return measure_page(page, SCRIPT, tmp_path, [1100, 375])


def faults(views: Sequence[dict[str, Any]]) -> list[str]:
    """Name every fault of the measured pages, each with the width it is seen at."""
    found = []
    for view in views:
        if view["scrolls"] > 0:
            found.append(f"{view['width']} px: the page is {view['scrolls']} px too wide")
        for text in itertools.chain(*view["charts"], *view["figures"]):
            found += [f"{view['width']} px: {json.dumps(text['text'][:30])} {fault}" for fault in faults_of(text)]
        for chart in view["charts"]:
            found += [f"{view['width']} px: {a!r} and {b!r} overlap" for a, b in overlaps(chart)]
    return found


def faults_of(text: dict[str, Any]) -> list[str]:
    (left, top, right, bottom), within = text["box"], text["within"]
    out = max(within[0] - left, within[1] - top, right - within[2], bottom - within[3])
    found = [f"leaves its figure by {out:.0f} px"] if out > 1 else []
    found += [f"has letters of {text['pixels']:.1f} px"] if text["pixels"] < 12 else []
    return found + ([f"has a contrast of {text['contrast']:.1f}"] if text["contrast"] < 4.5 else [])


def overlaps(chart: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Name the pairs of texts that lie on each other by more than a pixel."""

    def shared(one: dict[str, Any], other: dict[str, Any], axis: int) -> float:
        low = max(one["box"][axis], other["box"][axis])
        return float(min(one["box"][axis + 2], other["box"][axis + 2]) - low)

    pairs = itertools.combinations([text for text in chart if text["text"].strip()], 2)
    return [(a["text"][:20], b["text"][:20]) for a, b in pairs if min(shared(a, b, 0), shared(a, b, 1)) > 1]


@needs_chromium
def test_every_text_is_whole_at_every_width_in_light_and_dark(measured: list[dict[str, Any]]) -> None:
    assert [view["width"] for view in measured] == [1100, 1100, 375, 375]
    assert sum(map(len, measured[0]["charts"])) > 30
    found = sorted(set(faults(measured)))
    assert not found, "\n".join([f"{len(found)} faults", *found])


@needs_chromium
def test_a_page_asks_the_network_for_nothing_and_lets_nothing_in_it_ask(page: str, tmp_path: Path) -> None:
    asks = f'<img src="{ELSEWHERE}"><script src="{ELSEWHERE}"></script>'
    assert requests_of(asks, tmp_path) == [ELSEWHERE, ELSEWHERE]  # else the next lines would say nothing
    assert requests_of(page, tmp_path) == []
    assert requests_of(page.replace("<main>", f"<main>{asks}"), tmp_path) == []


@needs_chromium
def test_plots_are_drawn_without_the_network(store: str, tmp_path: Path) -> None:
    from plotly.graph_objects import Figure, Scatter

    with mlflow.start_run() as run:
        log_plots({"one": lambda: Figure(Scatter(y=[1, 2])), "two": lambda: Figure(Scatter(y=[2, 1]))}, "plots.html")
    plots = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/plots.html")
    assert plots.count("plotly.js v") == 1
    assert requests_of(plots, tmp_path) == []
    assert dump_dom((tmp_path / "asks.html").as_uri(), tmp_path).count('class="scatterlayer') == 2
