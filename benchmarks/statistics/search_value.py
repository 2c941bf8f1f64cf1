"""What is a search worth, and how much of what it promises is kept?

    make bench-search DATA=EuroSAT.zip BACKBONE=folder PROXY=mini-imagenet/val.tar

Three searches from each seed, alike but for the episodes that their trials are scored on: from the half of the target
that is not reported on; from other classes altogether, without a label of the target; and, as nobody should, from the
half that is reported on, where the promise is what a project without a split would report. Of each the promise (mean
over the search's episodes), the truth (mean over many fresh episodes of the half that is reported on), and the gain
over the recipe that it started from. `other classes turned` gives each of their pictures a quarter turn, for targets
that have no upright direction. With `unpruned` among the objectives, the first search is made a second time with every
trial on all episodes, and the two winners are compared on the reported ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
import torch
from joblib import cpu_count

from pipelines.reports.words import say_winner
from tl_core.data.dataset import load_dataset
from tl_core.data.episodes import build_pool
from tl_core.fewshot.finetuner import Finetuner
from tl_core.heads.storage import load_backbone
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.scoring.episodes import Estimate, estimate, independent_difference, paired_difference
from tl_core.search.objective import Budget
from tl_core.search.space import parse_space
from tl_core.search.studies import build_study
from tl_core.search.trials import count_episodes, find_candidates, prepare_study
from tl_core.search.verdict import rescore, select_winner
from tl_core.search.workers import EpisodeScores, Search

FINALISTS, FRESH = 3, 100
FIRST_REPORTED = 1_000_000
"""Index from which the reported episodes are counted: no search has drawn them."""


@dataclass(frozen=True)
class Worth:
    """One row of the table."""

    name: str
    promised: Estimate
    fresh: Estimate
    reported: Estimate
    optimism: Estimate
    gain: Estimate
    spent: float
    minutes: float
    scores: tuple[float, ...]
    """Of the winner, on the reported episodes."""

    def row(self) -> str:
        """As a line of a Markdown table."""
        cells = [
            self.name,
            *(f"{100 * e.mean:.2f} +- {100 * e.ci95:.2f}" for e in (self.promised, self.fresh, self.reported)),
        ]
        cells += [f"{100 * e.mean:+.2f} +- {100 * e.ci95:.2f}" for e in (self.optimism, self.gain)]
        return " | ".join(["", *cells, f"{100 * self.spent:.0f} %", f"{self.minutes:.1f}", ""]).strip()


def search_once(
    objective: str,
    finetuner: Finetuner,
    target: Finetuner,
    episodes: EpisodeScores,
    reported: EpisodeScores,
    args: argparse.Namespace,
) -> Worth:
    """Search with the episodes' seed and score what was found."""
    name, seed, prune = f"{objective}, seed {episodes.seed}", episodes.seed, objective != "unpruned"
    base = FinetuneRecipe(steps=args.steps, l2=1e-3)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{Path(folder, 'studies.db')}"
        study = build_study(name, storage, seed, prune=prune)
        space = prepare_study(study, parse_space(args.searched), base, {})
        search = Search(name, storage, seed, space, base, episodes, Budget(args.trials), prune=prune)
        for trial in search.run(finetuner, study, cpu_count()):
            print(f"  {name} {trial.number}: {trial.state}, {len(trial.scores)} episodes", flush=True)
        minutes = (time.perf_counter() - started) / 60
        spent = count_episodes(study) / (args.trials * len(episodes.indices))
        candidates = find_candidates(study, base, FINALISTS)
    fresh = replace(episodes, indices=range(len(episodes.indices), len(episodes.indices) + FRESH))
    verdict = select_winner(
        list(rescore(candidates, partial(fresh.run, finetuner, n_workers=cpu_count()))), base, fresh.pool.alike
    )
    best = verdict.best
    print(f"  {name}: {best.recipe}; {say_winner(verdict)}", flush=True)
    kept = verdict.scored_again(partial(reported.run, target, n_workers=cpu_count()))
    return Worth(
        name,
        estimate(best.search_scores),
        estimate(best.scores),
        estimate(kept.best.scores),
        independent_difference(best.search_scores, kept.best.scores),
        kept.gain,
        spent,
        minutes,
        tuple(kept.best.scores),
    )


def main() -> None:
    """Parse, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits:target")
    parser.add_argument("--proxy", default="digits:source", help="data spec of other classes")
    parser.add_argument("--backbone", type=Path, required=True, help="folder of a backbone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--objectives", nargs="+", default=["search half", "other classes", "leaky"])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--episodes", type=int, default=40, help="per trial, at most")
    parser.add_argument("--report", type=int, default=600, help="episodes that tell the truth")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--searched", default="max_lr+freeze_depth+augment")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    shape = EpisodeShape()
    network, spec = load_backbone(args.backbone)
    data, other = (load_dataset(which, spec.image_size) for which in (args.data, args.proxy))
    target, proxy = (Finetuner(network, spec, which, torch.device("cpu")) for which in (data, other))
    reported = EpisodeScores(build_pool(data, "report"), shape, 0, range(FIRST_REPORTED, FIRST_REPORTED + args.report))
    search_half = target, build_pool(data, "search")
    sources = {
        "search half": search_half,
        "other classes": (proxy, build_pool(other, "all")),
        "leaky": (target, build_pool(data, "report")),
        "unpruned": search_half,
    }
    rows = []
    for seed in args.seeds:
        for objective in args.objectives:
            finetuner, pool = sources[objective]
            episodes = EpisodeScores(pool, shape, seed, range(args.episodes))
            rows.append(search_once(objective, finetuner, target, episodes, reported, args))
            print(rows[-1].row(), flush=True)
    print("| searched on | promised % | fresh % | true % | optimism | gain over the base | episodes spent | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(row.row())
    found = {row.name: row.scores for row in rows}
    for seed in args.seeds:
        pruned, whole = (found.get(f"{objective}, seed {seed}") for objective in ("search half", "unpruned"))
        if pruned and whole:
            gain = paired_difference(pruned, whole)
            print(f"search half - unpruned, seed {seed}: {100 * gain.mean:+.2f} +- {100 * gain.ci95:.2f} points")


if __name__ == "__main__":
    main()
