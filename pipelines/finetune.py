"""Fine-tuning on many episodes: how well is a few-image target learned, and how sure is that?

    mlflow run . -e finetune -P target=EuroSAT.zip -P weights=<pretrain run> -P n_episodes=100

Draws episodes, fine-tunes the backbone afresh on each one's support images and scores its query images. Every
episode is a nested run; the parent has the mean accuracy with its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipelines.command_line.command import run_command_line
from pipelines.configs.data import PartOfTarget
from pipelines.configs.episodes import ScoredEpisodes
from pipelines.configs.fields import flat_params, with_values
from pipelines.configs.network import FewShotNetwork
from pipelines.configs.where import SharedWhere
from tl_core.recipes.checks import check_seed
from tl_core.recipes.choices import Part
from tl_core.recipes.engine import LOCAL, Engine
from tl_core.recipes.episode import OPEN_SHAPE, EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe, safe_recipe

if TYPE_CHECKING:
    from pipelines.inputs.target import Target
    from pipelines.results.episode_log import EpisodeLog
    from tl_core.data.dataset import ImageDataset
    from tl_core.data.episodes import Episode, EpisodePool
    from tl_core.fewshot.support import Support
    from tl_core.scoring.episodes import Estimate

N_RATE_TESTS = 3
"""Learning-rate range tests whose mean `max_lr=auto` takes."""
MIN_EPISODES = 20
"""Below, an interval itself is too uncertain to stop by."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tuning on many episodes: accuracy with its confidence interval."""

    data: PartOfTarget = field(default_factory=PartOfTarget)
    network: FewShotNetwork
    shape: EpisodeShape = OPEN_SHAPE
    episodes: ScoredEpisodes = field(default_factory=ScoredEpisodes)
    seed: int = 0
    """Seed of the episodes, their batches and views, and the weights of an untrained network."""
    search_run: str = ""
    """Search run whose recipe replaces the one below."""
    recipe: FinetuneRecipe = field(default_factory=safe_recipe)
    where: SharedWhere = field(default_factory=SharedWhere)
    engine: Engine = LOCAL

    def __post_init__(self) -> None:
        check_seed(self.seed)


def run(config: FinetuneConfig) -> str:
    """Score the recipe on episodes; returns the run's id."""
    import numpy as np

    from pipelines.inputs.names import is_run
    from pipelines.inputs.networks import find_recipe
    from pipelines.inputs.provenance import check_unseen, log_origin
    from pipelines.inputs.run_ids import with_run_ids
    from pipelines.inputs.target import open_target
    from pipelines.reports.log import log_report
    from pipelines.results.episode_log import EpisodeLog
    from pipelines.results.feature_map import log_feature_map
    from pipelines.store.checkpoints import hold_checkpoint
    from pipelines.store.logging import beside_the_numbers
    from pipelines.store.params import log_params
    from pipelines.store.runs import rename_run, tracked_run
    from tl_core.data.episodes import build_pool, check_pool, fit_shape, sample_episode

    name = _run_name(config)
    with tracked_run("finetune", config, name) as run_id:
        config = with_run_ids(config, weights="pretrain", search_run="search")
        rename_run(name, name := _run_name(config))
        recipe = find_recipe(config.search_run, config.recipe)
        opened = open_target(config)
        dataset = opened.dataset
        log_origin(config.network.weights, opened.spec, config.seed, recipe)
        part = _choose_part(dataset, config)
        pool = build_pool(dataset, part)
        rows = np.concatenate(pool.rows_by_class)
        if is_run(config.network.weights):
            check_unseen(config.network.weights, "pretrain", dataset, rows)
        if config.search_run:
            check_unseen(config.search_run, "search", dataset, rows)
        config = with_values(config, part=part, shape=fit_shape(pool, config.shape))
        check_pool(pool, config.shape)
        recipe = opened.settle_max_lr(_rate_supports(dataset, config), recipe)
        log_params(flat_params(with_values(config, recipe=recipe, **opened.used())))
        # Whoever does the work, it is the same work.
        same = with_values(config, workers=0, engine=LOCAL)
        journal = hold_checkpoint("finetune", same, dataset.fingerprint, suffix=".jsonl")
        log = EpisodeLog(dataset, pool, config.shape, config.seed, recipe, journal)
        _score(log, opened, pool, recipe, config)
        accuracy, of_images = log.close(lambda rows: opened.finetuner.features_of(rows, recipe))
        with beside_the_numbers("feature map"):
            log_feature_map(opened.finetuner, sample_episode(pool, config.shape, config.seed, 0), recipe)
        log_report(run_id)
        shape = f"{config.shape.n_way}-way {config.shape.n_shot}-shot with {config.shape.n_query} queries"
        print(f"{shape}, from {of_images.n:,} images ({part}); other images of the same kind: {of_images.percent()}")
        print(f"{name}, run {run_id}: accuracy {accuracy.percent()} on {config.data.target}")
    return run_id


def _choose_part(dataset: ImageDataset, config: FinetuneConfig) -> Part:
    """`report`, so that a later search has a half of its own, unless that would leave too little to judge by."""
    from tl_core.data.episodes import can_be_halved

    if config.data.part != "auto":
        return config.data.part
    return "report" if config.search_run or can_be_halved(dataset) else "all"


def _score(log: EpisodeLog, opened: Target, pool: EpisodePool, recipe: FinetuneRecipe, config: FinetuneConfig) -> None:
    """Run the episodes that an interrupted process has not left in the journal."""
    from tqdm import tqdm

    from tl_core.data.episodes import sample_episode
    from tl_core.fewshot.parallel import run_episodes

    def episodes(first: int) -> Iterator[Episode]:
        return (sample_episode(pool, config.shape, config.seed, i) for i in range(first, config.episodes.n_episodes))

    n_done = log.replay(episodes(0))
    total = config.episodes.n_episodes
    with tqdm(total=total, initial=n_done, desc="finetune", unit="episode", disable=None) as progress:
        results = run_episodes(opened.finetuner, episodes(n_done), recipe, config.where.workers, config.engine)
        while not _is_sure(log.accuracy(), config.episodes.until_ci) and (result := next(results, None)) is not None:
            log.add(result)
            progress.set_postfix_str(log.accuracy().percent())
            progress.update()


def _rate_supports(dataset: ImageDataset, config: FinetuneConfig) -> Iterator[Support]:
    """Support sets for `max_lr=auto`: from the half that nothing is reported on, unless all images are one part."""
    from tl_core.data.episodes import build_pool, sample_episode

    pool = build_pool(dataset, "all" if config.data.part == "all" else "search")
    smallest = min(pool.class_sizes)  # the halves need not be equally large
    n_shot = max(1, min(config.shape.n_shot, smallest - 1))
    shape = replace(config.shape, n_shot=n_shot, n_query=max(1, min(config.shape.n_query, smallest - n_shot)))
    for index in range(N_RATE_TESTS):
        episode = sample_episode(pool, shape, config.seed, index)
        yield episode.support_rows, episode.support_labels, episode.seed


def _is_sure(accuracy: Estimate, until_ci: float) -> bool:
    return until_ci > 0 and accuracy.n >= MIN_EPISODES and 100 * accuracy.ci95 <= until_ci


def _run_name(config: FinetuneConfig) -> str:
    """Tells the runs of one table apart: `finetune EuroSAT from pixels`, `finetune EuroSAT from 0a1b2c3d searched`."""
    from pipelines.inputs.names import run_name

    network = config.network
    searched = "searched" if config.search_run else ""
    shots = f"{config.shape.n_shot}-shot" if config.shape.n_shot else ""
    more = " ".join(filter(None, (searched, shots)))
    return run_name("finetune", config.data.target, network.weights, network.backbone, more)


if __name__ == "__main__":
    run_command_line(FinetuneConfig, run)
