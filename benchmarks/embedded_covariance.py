"""Covariance that embedded weights' features are whitened by: `python -m benchmarks.embedded_covariance --data SPEC`.

Made once, from 60 photographs of each of the 64 training classes of miniImageNet, which the weights know anyway. What
is kept is the upper triangle of 496 x 496 numbers, relative to their mean variance, in 16 bits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tl_core.data.dataset import load_dataset
from tl_core.freezing.activations import FrozenActivations
from tl_core.networks import embedded
from tl_core.networks.backbones import with_features
from tl_core.networks.normalise import Normalise
from tl_core.networks.weights import load_weights
from tl_core.networks.whitening import within_class_covariance

SIZE, PER_CLASS = 128, 60

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    dataset = load_dataset(parser.parse_args().data, SIZE)
    order = np.random.default_rng(0).permutation(len(dataset.labels))
    of_class = (order[dataset.labels[order] == label][:PER_CLASS] for label in range(len(dataset.class_names)))
    rows = np.sort(np.concatenate(list(of_class)))
    network, spec = with_features(*load_weights("embedded", "", SIZE), "stages")
    frozen = FrozenActivations(nn.Sequential(Normalise(spec), network), dataset.images, torch.device("cpu"), keep=True)
    covariance = within_class_covariance(frozen.fixed(rows, view=0), torch.from_numpy(dataset.labels[rows]))
    assert covariance is not None
    relative = covariance / covariance.trace() * len(covariance)
    triangle = relative[tuple(torch.triu_indices(*covariance.shape))].half().numpy()
    np.save(Path(embedded.__file__).with_name("embedded_covariance.npy"), triangle)
