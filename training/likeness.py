"""The student's loss: similarities between images should match those of the teacher's targets."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ANCHORS = 4096  # targets that each batch's features are compared with
_ANCHOR_TEMPERATURE = 0.05
# Chosen in docs/experiments.md, "How softly a student compares bits".
_BATCH_TEMPERATURE = 0.2
_SHARPEST = 8.0  # final sharpness: tanh(8·logit) is nearly a bit


class Likeness(nn.Module):
    """Compares a student's similarities between images with those of the teacher's targets.

    targets: (n, 128) float rows of length 1, one per image. features: number of the
    student's features; a linear map, trained with the student, predicts the target from
    them.
    Source: Fang et al. 2021, arXiv:2101.04731 (SEED): the mapped features are compared with
    the targets of many images. The teacher has no codes, so the codes of a batch are
    compared with each other; codes kept from earlier steps are no substitute, because the
    network that made them has changed.
    """

    def __init__(self, targets: Tensor, features: int):
        super().__init__()
        self.targets = targets
        self.bridge = nn.Linear(features, targets.shape[1], device=targets.device)

    def terms(
        self, rows: Tensor, features: Tensor, outputs: dict[str, Tensor], random: torch.Generator
    ) -> dict[str, Tensor]:
        """Return scalar losses by name.

        "cosine": 1 - mean cosine between mapped features and targets. "features": KL
        divergence, in nats, between the targets' and the mapped features' similarities to
        the anchors. For each output, by its name: KL divergence, in nats, between the
        similarities of the targets and of the output within the batch.

        rows: (batch,) int64 indices of images; pairs of views of one image are ignored.
        features: (batch, features) float; outputs: (batch, width) float each, compared by
        cosine similarity.
        """
        wanted = self.targets[rows]
        mapped = F.normalize(self.bridge(features))
        size = (ANCHORS,)
        drawn = torch.randint(len(self.targets), size, generator=random, device=rows.device)
        anchors = self.targets[drawn]
        itself = rows[:, None] == drawn
        losses = {
            "cosine": 1 - (mapped * wanted).sum(dim=1).mean(),
            "features": divergence(
                wanted @ anchors.T, mapped @ anchors.T, itself, _ANCHOR_TEMPERATURE
            ),
        }
        target_similarities = wanted @ wanted.T
        itself = rows[:, None] == rows
        for name, output in outputs.items():
            directions = F.normalize(output)
            losses[name] = divergence(
                target_similarities, directions @ directions.T, itself, _BATCH_TEMPERATURE
            )
        return losses


def divergence(wanted: Tensor, found: Tensor, itself: Tensor, temperature: float) -> Tensor:
    """Mean Kullback-Leibler divergence KL(wanted ‖ found) between softmaxes of rows.

    wanted, found: (n, m) cosine similarities; itself: (n, m) bool, True for pairs of an
    image with itself, which are ignored. Returns a scalar, in nats.
    """
    expected = (wanted / temperature).masked_fill(itself, -torch.inf).softmax(dim=1)
    logarithms = (found / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    pairs = torch.xlogy(expected, expected) - expected * logarithms
    return torch.where(itself, 0.0, pairs).sum(dim=1).mean()


def soft_bits(logits: Tensor, sharpness: Tensor) -> Tensor:
    """tanh(logits · sharpness), between -1 and 1; it approaches bits as sharpness grows."""
    return torch.tanh(logits * sharpness)


def sharpness(progress: float) -> float:
    """Sharpness of the soft bits: it rises exponentially from 1 to 8."""
    return float(_SHARPEST**progress)


@torch.no_grad()
def agreement(
    bits: Tensor, targets: Tensor, asked: Tensor, asked_targets: Tensor, *, nearest: int = 10
) -> float:
    """Mean cosine similarity between the targets of queries and of their nearest codes.

    bits: (n, n_bits) bool, the gallery; asked: (m, n_bits) bool, the queries. targets
    and asked_targets: (n, 128) and (m, 128) float rows of length 1. nearest: number of
    gallery codes per query.
    """
    signs, query_signs = (part.float() * 2 - 1 for part in (bits, asked))
    rows = (query_signs @ signs.T).topk(min(nearest, len(bits)), dim=1).indices
    return float(torch.einsum("md,mkd->mk", asked_targets, targets[rows]).mean())
