"""Figure of the README: `PYTHONPATH=. python docs/figure.py MAIN_RUN` draws demo.png from a logged run of the demo.

It repeats the first episode of the run's last method, which gives the same predictions, and shows its images.
"""

from __future__ import annotations

import sys
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tl_core.data.dataset import ImageDataset
    from tl_core.fewshot.results import EpisodeResult

FIGURE = Path(__file__).with_name("demo.png")
N_QUERIES = 8
"""Query images of each class that are shown: the first ones."""
DPI = 150
_RIGHT, _WRONG = "#007a55", "#c2410c"


def score_first_episode(finetune_run: str) -> tuple[ImageDataset, EpisodeResult]:
    """Repeat the first episode of a finetune run; the result is the one that the run has logged."""
    import torch

    from pipelines.inputs.artifacts import RECIPE_ARTIFACT
    from pipelines.inputs.networks import load_network
    from pipelines.store.artifacts import fetch_artifact
    from pipelines.store.find import find_run
    from pipelines.store.params import used_params
    from tl_core.data.dataset import load_dataset
    from tl_core.data.episodes import build_pool, sample_episode
    from tl_core.fewshot.finetuner import Finetuner
    from tl_core.recipes.episode import EpisodeShape
    from tl_core.recipes.finetune import parse_recipe

    params: dict[str, Any] = dict(used_params(find_run(finetune_run, "finetune")))
    seed = int(params["seed"])
    size, features = int(params["image_size"]), params["features"]
    backbone, spec = load_network(params["weights"], params["backbone"], size, seed, features)
    dataset = load_dataset(params["target"], spec.image_size)
    shape = EpisodeShape(*(int(params[name]) for name in ("n_way", "n_shot", "n_query")))
    episode = sample_episode(build_pool(dataset, params["part"]), shape, seed, 0)
    recipe = parse_recipe(fetch_artifact(finetune_run, RECIPE_ARTIFACT).read_text())
    (result,) = Finetuner(backbone, spec, dataset, torch.device("cpu")).run_episodes([episode], recipe)
    return dataset, result


def draw_episode(dataset: ImageDataset, result: EpisodeResult, caption: str) -> Figure:
    """Draw an episode: a row per class, its support images on the left, query images with predictions on the right."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("agg")
    episode = result.episode
    n_way = len(episode.class_ids)
    support = episode.support_rows.reshape(n_way, -1)
    queries, predictions = episode.query_rows.reshape(n_way, -1), result.predictions.reshape(n_way, -1)
    n_shot, n_shown = support.shape[1], min(N_QUERIES, queries.shape[1])
    figure = Figure(figsize=(8.4, 0.78 * n_way + 1.15), facecolor="white")
    widths = [*[1.0] * n_shot, 0.45, *[1.0] * n_shown]
    grid = figure.add_gridspec(
        n_way, len(widths), width_ratios=widths, left=0.085, right=0.99, top=0.91, bottom=0.135, hspace=0.42, wspace=0.1
    )
    n_shared = len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*dataset.class_names, strict=False))))
    for way in sorted(range(n_way), key=lambda way: episode.class_ids[way]):
        label = episode.class_ids[way]
        line = sorted(episode.class_ids).index(label)
        shots = [figure.add_subplot(grid[line, column]) for column in range(n_shot)]
        for axes, row in zip(shots, support[way], strict=True):
            _show(axes, dataset, row, "#9ca3af")
        shots[0].set_ylabel(dataset.class_names[label], rotation=0, ha="right", va="center", fontsize=10)
        for column in range(n_shown):
            axes, guess = figure.add_subplot(grid[line, n_shot + 1 + column]), predictions[way, column]
            colour, mark = (_RIGHT, "\N{CHECK MARK}") if guess == label else (_WRONG, "\N{BALLOT X}")
            _show(axes, dataset, queries[way, column], colour)
            axes.set_xlabel(
                f"{dataset.class_names[guess][n_shared:]} {mark}",
                color=colour,
                fontsize=9.5,
                labelpad=1.5,
                family="DejaVu Sans",
            )
    figure.text(0.085, 0.945, f"Learned from {n_shot} images per class", fontsize=11, weight="bold")
    middle = shots[-1].get_position().x1 + 0.035
    figure.text(middle, 0.945, "New images, with the prediction for each", fontsize=11, weight="bold")
    figure.text(0.5, 0.022, caption, fontsize=10, ha="center", va="bottom", linespacing=1.35)
    return figure


def _show(axes: Axes, dataset: ImageDataset, row: int, colour: str) -> None:
    axes.imshow(dataset.images[row])
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=1.8)


def describe_episode(result: EpisodeResult, method: str, percent: str) -> str:
    """Caption: the result of this episode, and the mean of all with its confidence interval."""
    n_right = int((result.labels == result.predictions).sum())
    return (
        f"One episode ({method}): {n_right} of {len(result.labels)} predictions are correct; "
        f"the first {N_QUERIES} of each class are shown.\n"
        f"Mean accuracy over all episodes, with its 95 % confidence interval: {percent}"
    )


if __name__ == "__main__":
    import json

    from pipelines.results.scores import METHODS_ARTIFACT, accuracies, accuracy_of
    from pipelines.store.artifacts import fetch_artifact
    from pipelines.store.connection import prepare_store
    from pipelines.store.find import find_run

    prepare_store()
    main_run = find_run(sys.argv[1], "main").info.run_id
    method, run_id = list(json.loads(fetch_artifact(main_run, METHODS_ARTIFACT).read_text()).items())[-1]
    images, of_episode = score_first_episode(run_id)
    if abs(of_episode.accuracy - accuracies(run_id)[0]) > 1e-9:
        raise SystemExit(f"expected an accuracy of {accuracies(run_id)[0]} as logged, got {of_episode.accuracy}")
    text = describe_episode(of_episode, method, accuracy_of(run_id).percent())
    draw_episode(images, of_episode, text).savefig(FIGURE, dpi=DPI)
