"""What a teacher learns from: two views of one image should agree, and features not collapse.

One class an objective, all behind the same few methods.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashsearch.errors import TrainingError
from training.objectives import variance_lost
from training.resnet import Teacher

_HIDDEN = 64  # hidden units of projector and predictor, in widths: 4,096 at full width


class Pretext(nn.Module, ABC):
    """An online network that learns, and a slow copy of it: the teacher, whose features are used.

    teacher: the encoder of the slow copy, changed in place. embedding: outputs of the
    projector, which stands between features and loss.
    """

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.teacher = Teacher(width)
        self.projector = perceptron(self.teacher.features_width, _HIDDEN * width, embedding)
        self.online = nn.ModuleDict(
            {"encoder": copy.deepcopy(self.teacher), "projector": copy.deepcopy(self.projector)}
        )
        self.teacher.requires_grad_(False)
        self.projector.requires_grad_(False)

    @abstractmethod
    def terms(self, one: Tensor, two: Tensor) -> dict[str, Tensor]:
        """The parts of the loss, from two views' standardised pixels, (n, 3, 32, 32) each."""

    def learners(self) -> list[nn.Parameter]:
        """The weights that the loss trains."""
        return [weights for weights in self.parameters() if weights.requires_grad]

    @torch.no_grad()
    def follow(self, share: Tensor) -> None:
        """Move the slow copy's weights towards the online network's by this share."""
        for slow, fast in self._pairs():
            for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                old.lerp_(new, share)

    def portable(self) -> dict[str, Tensor]:
        """All that another machine needs to go on, in bfloat16 but for the statistics."""
        kept = {n: t for n, t in self.state_dict().items() if not n.startswith("online.")}
        return {n: t.bfloat16() if t.ndim > 1 else t for n, t in kept.items()}

    @torch.no_grad()
    def load_portable(self, tensors: dict[str, Tensor]) -> None:
        """Take these up; the online network starts as a copy of the slow one.

        Raises TrainingError if they are not all that another machine needs.
        """
        if shapes_of(tensors) != shapes_of(self.portable()):
            raise TrainingError("the portable checkpoint is of another model, or not whole")
        own = self.state_dict()
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
        for slow, fast in self._pairs():
            fast.load_state_dict(slow.state_dict())

    def _pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (self.teacher, self.online["encoder"]),
            (self.projector, self.online["projector"]),
        ]

    def _online(self, pixels: Tensor) -> Tensor:
        encoder = self.online["encoder"]
        assert isinstance(encoder, Teacher)
        projected: Tensor = self.online["projector"](encoder.features(pixels))
        return projected


class Byol(Pretext):
    """The online network predicts what the slow copy makes of the other view.

    Source: Grill et al. 2020, arXiv:2006.07733.
    """

    def __init__(self, width: int, embedding: int):
        super().__init__(width, embedding)
        self.predictor = perceptron(embedding, _HIDDEN * width, embedding)

    def terms(self, one: Tensor, two: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            targets = [self.projector(self.teacher.features(view)).float() for view in (two, one)]
        predicted = [self.predictor(self._online(view)).float() for view in (one, two)]
        lost = [variance_lost(*pair) for pair in zip(predicted, targets, strict=True)]
        return {"invariance": 2 * (lost[0] + lost[1])}


class VicReg(Pretext):
    """Views agree, every output varies, and no two vary together.

    The slow copy only averages weights. The projector has two layers, where the source's
    has three.
    Source: Bardes et al. 2022, arXiv:2105.04906, with its weights 25, 25 and 1.
    """

    def terms(self, one: Tensor, two: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():  # so that the slow copy's statistics are of views too
            self.projector(self.teacher.features(one))
        embedded = [self._online(view).float() for view in (one, two)]
        with torch.autocast(one.device.type, enabled=False):  # covariances need float32
            spread, together = zip(*map(_variance_and_covariance, embedded), strict=True)
        return {
            "invariance": 25 * F.mse_loss(embedded[0], embedded[1]),
            "variance": 25 * (spread[0] + spread[1]),
            "covariance": together[0] + together[1],
        }


def _variance_and_covariance(rows: Tensor) -> tuple[Tensor, Tensor]:
    """What (n, width) outputs lack in deviation, and how much they vary together."""
    count, width = rows.shape
    centred = rows - rows.mean(dim=0)
    deviation = (centred.square().sum(dim=0) / (count - 1) + 1e-4).sqrt()
    covariance = centred.T @ centred / (count - 1)
    others = covariance.square().sum() - covariance.diagonal().square().sum()
    return F.relu(1 - deviation).mean() / 2, others / width


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """By name, to compare two models by."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


PRETEXTS: dict[str, type[Pretext]] = {"byol": Byol, "vicreg": VicReg}


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer, normalised over the batch, of rectified units."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs),
    )
