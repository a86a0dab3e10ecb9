"""What a student learns: to find those images alike that its teacher does."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ANCHORS = 4096  # targets with which a batch's features are compared
_TEMPERATURE = 0.05
_SHARPEST = 8.0  # at the end, tanh(8·logit) is nearly a bit


class Likeness(nn.Module):
    """Holds a student's likenesses between images against those between the teacher's targets.

    targets: (n, 128) float, of length 1, a row an image. features: their number, from
    which a linear map, learnt beside the student, predicts the target.
    Source: Fang et al. 2021, arXiv:2101.04731 (SEED): the mapped features are compared with
    targets of many images. For codes the teacher has nothing to compare with, so images of
    a batch are compared with each other; codes kept from earlier steps are no substitute,
    as the network that made them has changed.
    """

    def __init__(self, targets: Tensor, features: int):
        super().__init__()
        self.targets = targets
        self.bridge = nn.Linear(features, targets.shape[1], device=targets.device)

    def terms(
        self, rows: Tensor, features: Tensor, outputs: dict[str, Tensor], random: torch.Generator
    ) -> dict[str, Tensor]:
        """Scalars by name: "cosine", how far the mapped features are from the targets;
        "features", the divergence, in nats, of their likenesses to other targets from the
        targets' own; and for each output that of likenesses within the batch.

        rows: (batch,) int64, which images these are, each once; features: (batch, features)
        float; outputs: (batch, width) float each, compared by their cosine.
        """
        wanted = self.targets[rows]
        mapped = F.normalize(self.bridge(features))
        size = (ANCHORS,)
        drawn = torch.randint(len(self.targets), size, generator=random, device=rows.device)
        anchors = self.targets[drawn]
        itself = rows[:, None] == drawn
        found = {
            "cosine": 1 - (mapped * wanted).sum(dim=1).mean(),
            "features": divergence(wanted @ anchors.T, mapped @ anchors.T, itself),
        }
        alike = wanted @ wanted.T
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        for name, output in outputs.items():
            directions = F.normalize(output)
            found[name] = divergence(alike, directions @ directions.T, itself)
        return found


def divergence(wanted: Tensor, found: Tensor, itself: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the softmax of one row of likenesses from another's.

    wanted, found: (n, m) cosines; itself: (n, m) bool, pairs of an image and itself, which
    are alike whatever it shows and do not count. Returns a scalar, in nats.
    """
    expected = (wanted / _TEMPERATURE).masked_fill(itself, -torch.inf).softmax(dim=1)
    logarithms = (found / _TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    pairs = torch.xlogy(expected, expected) - expected * logarithms
    return torch.where(itself, 0.0, pairs).sum(dim=1).mean()


def soft_bits(logits: Tensor, sharpness: Tensor) -> Tensor:
    """Between -1 and 1, the nearer to bits the sharper."""
    return torch.tanh(logits * sharpness)


def sharpness(progress: float) -> float:
    """It rises from 1 to 8, by the same factor in equal times."""
    return float(_SHARPEST**progress)


@torch.no_grad()
def agreement(
    bits: Tensor, targets: Tensor, asked: Tensor, asked_targets: Tensor, *, nearest: int = 10
) -> float:
    """How like an image its nearest by code are to the teacher: the mean cosine of targets.

    bits: (n, n_bits) bool, of a gallery; asked: (m, n_bits) bool, of other images. targets
    and asked_targets: (n, 128) and (m, 128) float of length 1.
    """
    signs, own = (part.float() * 2 - 1 for part in (bits, asked))
    rows = (own @ signs.T).topk(min(nearest, len(bits)), dim=1).indices
    return float(torch.einsum("md,mkd->mk", asked_targets, targets[rows]).mean())
