"""Sections say what they leave out, and mark what was chosen."""

from __future__ import annotations

from dataclasses import asdict, replace

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run

from pipelines.reports.charts import make_intervals
from pipelines.reports.page import Chart, Page, Row, Section, Table, render_page
from pipelines.reports.predictions import say_left_out
from pipelines.reports.sections import say_search, search_section
from pipelines.reports.words import say_winner
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.search.verdict import Finalist, Verdict

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_a_map_of_all_classes_says_nothing_and_others_name_what_is_missing() -> None:
    assert say_left_out(["a", "b"], {"a", "b"}) == []
    (sentence,) = say_left_out(["a", "b", "c"], {"a"})
    assert sentence == "Drawn are 1 of its 3 classes, as many as colours can be told apart; left out: b and c."
    (many,) = say_left_out([f"{i}" for i in range(100)], {"3", "5"})
    assert many.endswith(": 3 and 5; the other 98 are left out.")


def searched(winner: FinetuneRecipe, verdict: str) -> Run:
    """A search run of two trials, with and without augmentation, that ended with one of them."""
    recipes = [FinetuneRecipe(l2=0.01), FinetuneRecipe(l2=0.1, augment="flip")]
    with mlflow.start_run() as run:
        for number, recipe in enumerate(recipes):
            with mlflow.start_run(run_name=f"trial-{number:04d}", nested=True):
                mlflow.set_tags({"kind": "trial", "state": "complete"})
                mlflow.log_params(asdict(recipe))
                mlflow.log_metric("accuracy", 0.7)
        rows = [{**asdict(recipe), "search_accuracy": 0.7, "accuracy": 0.8} for recipe in recipes]
        mlflow.log_text(pd.DataFrame(rows).to_csv(index=False), "finalists.csv")
        mlflow.log_dict(asdict(winner), "recipe.json")
        mlflow.log_param("searched", "l2+augment")
        mlflow.log_metrics({"accuracy": 0.8, "accuracy_ci95": 0.02, "n_trials": 2, "episodes_spent": 40})
        mlflow.set_tag("verdict", verdict)
    return mlflow.MlflowClient().get_run(run.info.run_id)


def test_a_search_leads_with_the_recipe_it_found_and_marks_it(store: str) -> None:
    run = searched(FinetuneRecipe(l2=0.1, augment="flip"), "better by far")
    assert say_search(run) == "l2 0.1, augment flip: 80.0 % ± 2.0 on fresh episodes; better by far"
    chart, finalists = search_section(run).parts
    assert isinstance(finalists, Table)
    assert [row[0] for row in finalists.rows] == ["1", "2, the winner"]
    assert isinstance(chart, Chart)
    assert "winner" in [key.text for key in chart.legend]


def test_a_default_recipe_that_stays_is_the_winner(store: str) -> None:
    run = searched(FinetuneRecipe(l2=0.01), "that one stays")
    assert say_search(run) == "l2 0.01, augment none: 80.0 % ± 2.0 on fresh episodes; that one stays"
    _, finalists = search_section(run).parts
    assert isinstance(finalists, Table)
    assert [row[0] for row in finalists.rows] == ["1, the winner", "2"]


def test_intervals_lie_on_one_scale_and_one_without_ends_is_a_dot() -> None:
    rows = [Row("<b>", 50, 40, 60, "50 %"), Row("few", 70, float("-inf"), float("inf"), "70 %, too few")]
    drawn = make_intervals("shares", rows)
    assert drawn.ticks[0] <= 40
    assert drawn.ticks[-1] >= 70
    assert (drawn.place(drawn.ticks[0]), drawn.place(drawn.ticks[-1])) == ("0.00%", "100.00%")
    page = render_page(Page("", "", [], [Section("", [], [drawn])]))
    assert page.count('<s style="left:') == 1
    assert "&lt;b&gt;" in page


def verdict(best: int, n: int = 100) -> Verdict:
    """A search whose base recipe is right on 70 of 100 images, and the best on so many."""
    rows, alike = np.arange(n), np.arange(n)
    base = Finalist(FinetuneRecipe(), (), (0.7,), rows, rows < 70)
    return Verdict(Finalist(FinetuneRecipe(l2=0.1), (), (best / n,), rows, rows < best), base, alike)


def test_the_terminal_and_the_page_say_alike_who_wins() -> None:
    assert say_winner(verdict(90)).startswith("better than the default recipe by 20.0 points (")
    stays = say_winner(verdict(72))
    assert stays.startswith("the best of the others is not significantly different from the default recipe (+2")
    assert stays.endswith("over 100 images), so that one stays")
    same = verdict(70)
    assert say_winner(replace(same, best=same.base)) == "nothing was better than the default recipe"
