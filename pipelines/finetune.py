"""How well is a few-image target learned, and how sure is that?

    mlflow run . -e finetune -P target=EuroSAT.zip -P backbone_run=<id of a pretrain run> -P n_episodes=100

Draws episodes, fine-tunes the backbone afresh on each one's support images and scores its query images. Every
episode is a nested run; the parent has the mean accuracy with its 95 % interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli import run_command_line
from tl_core.recipes import Device, EpisodeShape, FinetuneRecipe, Part, Unreadable, check_range

if TYPE_CHECKING:
    from tl_core.scoring import Estimate

_NAME_LENGTH = 8  # of a run id, as much as tells it apart
MIN_EPISODES = 20
"""Below, an interval itself is too uncertain to stop by."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How well is a few-image target learned, and how sure is that? Fine-tuning on many episodes."""

    target: str = "digits:target"
    """Data spec of the target."""
    backbone_run: str
    """Id of a pretrain run; a weights file, timm, timm:TAG or torchvision:ENUM.NAME; or one of the controls, random
    (untrained) and pixels (no network at all)."""
    backbone: str = "resnet10_small"
    """Architecture, where no pretrain run is named."""
    image_size: int = 0
    """Input side in pixels; 0 is that which the backbone was trained at, and 32 for the controls."""
    shape: EpisodeShape = field(default_factory=EpisodeShape)
    n_episodes: int = 20
    """Episodes to average over: the interval shrinks with their square root."""
    until_ci: float = 0.0
    """Stop earlier, once the interval's half-width is at most this many points; 0 runs all episodes."""
    part: Part = "report"
    """Images that episodes draw from: the half that search never sees, the half it sees, or all."""
    seed: int = 0
    """Seed of the episodes."""
    search_run: str = ""
    """Id of a search run whose recipe replaces the one below."""
    device: Device = "auto"
    """Where to compute."""
    unreadable: Unreadable = "refuse"
    """What to do about unreadable files: refuse the target, or skip them."""
    recipe: FinetuneRecipe = field(default_factory=FinetuneRecipe)

    def __post_init__(self) -> None:
        check_range("n_episodes", self.n_episodes, 1, 10_000_000)
        check_range("until_ci", self.until_ci, 0, 100)
        check_range("seed", self.seed, 0, 2**62)


def run(config: FinetuneConfig) -> str:
    """Score the recipe on episodes; returns the run's id."""
    from tqdm import tqdm

    from pipelines.episode_log import EpisodeLog
    from pipelines.networks import find_recipe, is_run, load_network
    from pipelines.provenance import check_unseen, log_origin
    from pipelines.tracking import log_dataset, tracked_run
    from tl_core.datasets import load_dataset
    from tl_core.devices import pick_device
    from tl_core.episodes import build_pool, check_pool, sample_episode
    from tl_core.finetune import Finetuner
    from tl_core.splits import part_rows

    with tracked_run("finetune", config, _run_name(config)) as run_id:
        recipe = find_recipe(config.search_run, config.recipe)
        network, spec = load_network(config.backbone_run, config.backbone, config.image_size, config.seed)
        dataset = load_dataset(config.target, spec.image_size, unreadable=config.unreadable)
        log_dataset(dataset, "target")
        log_origin(config.backbone_run, spec, config.seed, recipe)
        rows = part_rows(dataset, config.part)
        if is_run(config.backbone_run):
            check_unseen(config.backbone_run, "pretrain", dataset, rows)
        if config.search_run:
            check_unseen(config.search_run, "search", dataset, rows)
        pool = build_pool(dataset, config.part)
        check_pool(pool, config.shape)
        log = EpisodeLog(dataset, pool, config.shape, config.seed, recipe)
        episodes = (sample_episode(pool, config.shape, config.seed, i) for i in range(config.n_episodes))
        finetuner = Finetuner(network, spec, dataset, pick_device(config.device))
        progress = tqdm(total=config.n_episodes, desc=f"finetune {config.backbone_run}", unit="episode", disable=None)
        for result in finetuner.run_episodes(episodes, recipe):
            log.add(result)
            so_far = log.accuracy()
            progress.set_postfix(accuracy=f"{100 * so_far.mean:.1f}%")
            progress.update()
            if config.until_ci > 0 and _is_sure(so_far, config.until_ci):
                break
        progress.close()
        accuracy = log.close()
        print(f"finetune {run_id}: accuracy {accuracy.percent()} on {config.target}")
    return run_id


def _is_sure(accuracy: Estimate, until_ci: float) -> bool:
    return accuracy.n >= MIN_EPISODES and 100 * accuracy.ci95 <= until_ci


def _run_name(config: FinetuneConfig) -> str:
    """Tells the runs of one table apart: `finetune pixels`, `finetune 0a1b2c3d searched`."""
    return f"finetune {Path(config.backbone_run).name[:_NAME_LENGTH]}" + (" searched" if config.search_run else "")


if __name__ == "__main__":
    run_command_line(FinetuneConfig, run)
