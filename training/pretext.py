"""Self-supervised objectives of the teacher: two views agree, and features do not collapse.

Each objective is one subclass of `Pretext`.
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

_HIDDEN = 64  # hidden units of projector and predictor per unit of width: 4,096 at full width


class Pretext(nn.Module, ABC):
    """An online network trained by gradient descent, and its slow copy (momentum encoder).

    width: see Teacher. embedding: number of the projector's outputs, on which the loss is
    computed. The attribute `teacher` is the encoder of the slow copy, updated in place; its
    features are the result.
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
        """The loss terms for two views' standardised pixels, (n, 3, 32, 32) each."""

    def learners(self) -> list[nn.Parameter]:
        """The weights trained by gradient descent."""
        return [weights for weights in self.parameters() if weights.requires_grad]

    @torch.no_grad()
    def follow(self, share: Tensor) -> None:
        """Move the slow copy's weights by this share towards the online network's."""
        for slow, fast in self._slow_and_online():
            for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                old.lerp_(new, share)

    def portable(self) -> dict[str, Tensor]:
        """The tensors that another machine needs to continue.

        Kernels and matrices are in bfloat16; biases and normalisation statistics stay as
        they are.
        """
        kept = {n: t for n, t in self.state_dict().items() if not n.startswith("online.")}
        return {n: t.bfloat16() if t.ndim > 1 else t for n, t in kept.items()}

    @torch.no_grad()
    def load_portable(self, tensors: dict[str, Tensor]) -> None:
        """Load the result of `portable`; the online network starts as a copy of the slow one.

        Raises TrainingError if the names or shapes differ from this model's.
        """
        if shapes_of(tensors) != shapes_of(self.portable()):
            raise TrainingError("the portable checkpoint is of another model, or incomplete")
        own = self.state_dict()
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
        for slow, fast in self._slow_and_online():
            fast.load_state_dict(slow.state_dict())

    def _slow_and_online(self) -> list[tuple[nn.Module, nn.Module]]:
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
    """The online network predicts the slow copy's projection of the other view.

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
    """Two views agree, every output has variance, and no two outputs are correlated.

    The slow copy only averages weights. The projector has two layers; the source's has
    three.
    Source: Bardes et al. 2022, arXiv:2105.04906, with its weights 25, 25 and 1.
    """

    def terms(self, one: Tensor, two: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():  # updates the slow copy's batch-norm statistics
            self.projector(self.teacher.features(one))
        embedded = [self._online(view).float() for view in (one, two)]
        with torch.autocast(one.device.type, enabled=False):  # covariances need float32
            variances, covariances = zip(*map(_variance_and_covariance, embedded), strict=True)
        return {
            "invariance": 25 * F.mse_loss(embedded[0], embedded[1]),
            "variance": 25 * (variances[0] + variances[1]),
            "covariance": covariances[0] + covariances[1],
        }


def _variance_and_covariance(rows: Tensor) -> tuple[Tensor, Tensor]:
    """VICReg's variance and covariance losses of (n, width) outputs.

    The variance loss is half the mean shortfall of the outputs' standard deviations from 1.
    """
    count, width = rows.shape
    centred = rows - rows.mean(dim=0)
    deviation = (centred.square().sum(dim=0) / (count - 1) + 1e-4).sqrt()
    covariance = centred.T @ centred / (count - 1)
    off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
    return F.relu(1 - deviation).mean() / 2, off_diagonal / width


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, for comparing two models."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


PRETEXTS: dict[str, type[Pretext]] = {"byol": Byol, "vicreg": VicReg}


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A network with one hidden layer of batch-normalised rectified linear units."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs),
    )
