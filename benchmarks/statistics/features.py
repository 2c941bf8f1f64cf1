"""Features of a backbone and tables of what is measured on them, for the benchmarks that draw targets from one set."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tl_core.data.dataset import load_dataset
from tl_core.networks.backbones import with_features
from tl_core.networks.normalise import Normalise
from tl_core.networks.weights import load_weights
from tl_core.scoring.episodes import estimate, paired_difference

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Parser of the flags that name images, backbone and draws."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data spec")
    parser.add_argument("--weights", required=True, help="weights of the backbone")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--draws", type=int, default=20)
    return parser


def load_features(args: argparse.Namespace) -> tuple[Floats, Ints]:
    """Features of the stages, float64 (n, d), and labels, int64 (n,), of one image of each group of near-duplicates."""
    dataset = load_dataset(args.data, args.size)
    network, spec = with_features(*load_weights(args.weights, args.backbone, args.size), "stages")
    model = nn.Sequential(Normalise(spec), network).eval()
    rows = np.unique(dataset.near_duplicates, return_index=True)[1]
    with torch.no_grad():
        parts = [
            model(torch.from_numpy(dataset.images[some]).movedim(3, 1).float() / 255).double().numpy()
            for some in np.array_split(rows, max(1, len(rows) // 64))
        ]
    return np.concatenate(parts), dataset.labels[rows]


def scaled(features: Floats) -> Floats:
    """Features that are centred and of mean square length 1."""
    centred = features - features.mean(0)
    found: Floats = centred / np.sqrt(np.square(centred).sum(1).mean())
    return found


def print_table(kind: str, columns: Sequence[str], results: Mapping[str, Floats]) -> None:
    """Print means in percent and differences to the first row, with their intervals; results are (columns, draws)."""
    print(f"| {kind} | {' | '.join(f'{column} % | difference' for column in columns)} |")
    print("|---|" + "---|---|" * len(columns))
    base = next(iter(results.values()))
    for name, found in results.items():
        cells = [name]
        for values, of_base in zip(found.tolist(), base.tolist(), strict=True):
            mean, beside = estimate(values), paired_difference(values, of_base)
            cells.append(f"{100 * mean.mean:.2f} +- {100 * mean.ci95:.2f}")
            cells.append(f"{100 * beside.mean:+.2f} +- {100 * beside.ci95:.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)
