"""Networks that `classify` chose among, beside each other: how good each would have been, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_core.recipes.choices import Priors
from tl_core.scoring.delivered import score_delivered
from tl_core.scoring.images import Interval
from tl_core.scoring.paired import PairedDifference, paired_over_images

if TYPE_CHECKING:
    from tl_core.crossvalidation.folds import Groups
    from tl_core.crossvalidation.procedure import Procedure


@dataclass(frozen=True)
class NetworkScore:
    """Score of the file that this network alone would give.

    Attributes:
        network: weights and image size, as in the candidates.
        accuracy: of the same procedure without the other networks.
        difference: accuracy - that of the network that was taken, on the same images; None for that one.
        milliseconds: that its features of one image took here, in batches.
    """

    network: str
    accuracy: Interval
    difference: PairedDifference | None
    milliseconds: float

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> NetworkScore:
        """Read back what `asdict` made."""
        difference = found["difference"]
        return cls(
            found["network"],
            Interval(**found["accuracy"]),
            None if difference is None else PairedDifference(**difference),
            found["milliseconds"],
        )


def score_networks(
    procedure: Procedure, priors: Priors, groups: Groups, milliseconds: Mapping[str, float]
) -> tuple[NetworkScore, ...]:
    """Score each network alone, in the order of the candidates; differences allow for their number."""
    import torch

    from tl_core.heads.shares import image_weights

    taken = procedure.classifier.candidate.features
    labels = torch.from_numpy(procedure.out_of_fold.labels)
    weights = image_weights(labels, torch.ones(1, len(labels), dtype=torch.bool), priors)[0].double().numpy()
    hits = {name: found.right() for name, found in procedure.alone.items()}
    scores = []
    for name, found in procedure.alone.items():
        of_network = score_delivered(found, groups.of_image)
        accuracy = of_network.balanced_accuracy if priors == "balanced" else of_network.accuracy
        lead = hits[name] - hits[taken]
        n_pairs = max(1, len(hits) - 1)
        difference = None if name == taken else paired_over_images(lead, weights, groups.of_image, n_pairs)
        scores.append(NetworkScore(name, accuracy, difference, milliseconds[name]))
    return tuple(scores)
