"""Which learning rate, freezing depth and augmentation suit this target?

    mlflow run . -e search -P target=EuroSAT.zip -P backbone_run=<id of a pretrain run> -P n_trials=30

An Optuna study over episodes from the half of the target that `finetune` does not report on. Every trial is a
nested run; trials that are clearly behind the best one on the same episodes are stopped early.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from pipelines.cli import run_command_line
from tl_core.recipes import Device, EpisodeShape, FinetuneRecipe, Unreadable, check_range


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Which learning rate, freezing depth and augmentation suit this target? An Optuna study."""

    target: str = "digits:target"
    """Data spec of the target."""
    backbone_run: str
    """Id of a pretrain run; a weights file, timm, timm:TAG or torchvision:ENUM.NAME; or random, or pixels."""
    backbone: str = "resnet10_small"
    """Architecture, where no pretrain run is named."""
    image_size: int = 0
    """Input side in pixels; 0 is that which the backbone was trained at, and 32 for the controls."""
    n_trials: int = 20
    """Trials that the study shall hold in the end."""
    shape: EpisodeShape = field(default_factory=EpisodeShape)
    n_episodes: int = 20
    """Episodes per trial, the same ones for every trial."""
    study: str = ""
    """Name of a study to continue; empty starts one named after the run."""
    seed: int = 0
    """Seed of the episodes and of the sampler."""
    device: Device = "auto"
    """Where to compute."""
    unreadable: Unreadable = "refuse"
    """What to do about unreadable files: refuse the target, or skip them."""
    recipe: FinetuneRecipe = field(default_factory=FinetuneRecipe)

    def __post_init__(self) -> None:
        check_range("n_trials", self.n_trials, 1, 1_000_000)
        check_range("n_episodes", self.n_episodes, 1, 1_000_000)
        check_range("seed", self.seed, 0, 2**31 - 1)


def run(config: SearchConfig) -> str:
    """Search and log; returns the run's id, whose artifact `recipe.json` is what `finetune` and `fit` load."""
    import mlflow
    from tqdm import tqdm

    from pipelines.networks import load_network
    from pipelines.provenance import log_seen_images, network_name
    from pipelines.tracking import log_dataset, tracked_run
    from pipelines.trial_log import TrialLog, study_storage
    from tl_core.datasets import load_dataset
    from tl_core.devices import pick_device
    from tl_core.episodes import build_pool, check_pool, sample_episode
    from tl_core.finetune import Finetuner
    from tl_core.search import SEARCHED, SearchSpace, build_study, check_setting, run_trials
    from tl_core.splits import part_rows

    with tracked_run("search", config) as run_id:
        network, spec = load_network(config.backbone_run, config.backbone, config.image_size, config.seed)
        dataset = load_dataset(config.target, spec.image_size, unreadable=config.unreadable)
        log_dataset(dataset, "target")
        log_seen_images(dataset, part_rows(dataset, "search"))
        pool = build_pool(dataset, "search")
        check_pool(pool, config.shape)
        episodes = [sample_episode(pool, config.shape, config.seed, i) for i in range(config.n_episodes)]
        finetuner = Finetuner(network, spec, dataset, pick_device(config.device))
        study = build_study(config.study or f"search-{run_id}", study_storage(), config.seed)
        mlflow.set_tag("study", study.study_name)
        fixed = {name: value for name, value in asdict(config.recipe).items() if name not in SEARCHED}
        check_setting(
            study,
            {"pool": pool.fingerprint, "network": network_name(config.backbone_run, spec, config.seed), "recipe": fixed}
            | {"n_episodes": config.n_episodes, "seed": config.seed, **asdict(config.shape)},
        )
        log = TrialLog(study, config.n_episodes)
        trials = run_trials(
            study,
            SearchSpace(),
            config.recipe,
            lambda recipe: (result.accuracy for result in finetuner.run_episodes(episodes, recipe)),
            config.n_trials,
        )
        for trial in tqdm(trials, total=config.n_trials, desc="search", unit="trial", disable=None):
            log.add(trial)
        recipe, accuracy = log.close()
        print(f"search {run_id}: best mean accuracy {100 * accuracy:.2f} % on the search half, by {recipe}")
    return run_id


if __name__ == "__main__":
    run_command_line(SearchConfig, run)
