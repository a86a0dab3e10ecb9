"""The interface between the training job and a preset, and defaults for autoencoders."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.encoder import Encoder
from hashsearch.errors import TrainingError
from hashsearch.images import PREPROCESSING
from hashsearch.metrics import psnr_db
from hashsearch.models.autoencoder import Autoencoder, StoredModel
from hashsearch.models.card import Card, model_name, of_other_rules
from hashsearch.models.storage import read_model
from training.budget import Stateful
from training.data import Batches
from training.labels import ClassLabels
from training.run import Run
from training.schedule import cosine, set_rate
from training.step import Compute, Step
from training.targets import Targets
from training.training_report import Drawing, bit_drawings, filter_drawing, reconstruction_drawing

_log = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)
A = TypeVar("A", bound=Autoencoder)


@dataclass(frozen=True, slots=True)
class Start:
    """Initial weights from another model, in place of random ones. card: that model's card."""

    weights: Mapping[str, Tensor]
    card: Card


@dataclass(frozen=True, slots=True)
class Work:
    """The inputs of a training other than its model.

    images: (n, 32, 32, 3) uint8 training images; held_out: images of the same sources that
    are not trained on. begun: whether the initial weights are another model's. targets: a
    teacher's targets for all of these images. labels, held_labels: those of the images and of
    `held_out`, if the preset learns labels.
    """

    run: Run
    images: NDArray[np.uint8]
    seed: int
    device: str
    begun: bool = False
    held_out: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 32, 32, 3), np.uint8))
    targets: Targets | None = None
    labels: ClassLabels | None = None
    held_labels: ClassLabels | None = None

    def resident(self) -> Tensor:
        """The training images, on the device."""
        return torch.from_numpy(self.images).to(self.device)

    def stage(
        self,
        name: str,
        parts: Mapping[str, Stateful],
        optimizers: Mapping[str, tuple[torch.optim.Optimizer, float]],
        compute: Compute,
        *,
        batch: int,
        part: int,
        shape: Callable[[float], float] = cosine,
        at: Callable[[float], None] = lambda progress: None,
        passes: int | None = None,
        **options: Any,
    ) -> None:
        """Run a stage of gradient descent on batches of the images.

        optimizers: by name, each with its full learning rate. compute: takes one step, see
        Step. part: number of the random stream; with seed and step it seeds the random draws.
        shape: the rate's schedule, see schedule.py. at: called with the progress before each
        step. passes: over the images, at most; after these the stage ends, even if there is time
        for more. options: passed to Run.stage.
        """
        batches = Batches(len(self.images), batch, self.seed, self.device)
        take = Step(compute, self.device, self.seed, part)

        def update(step: int, progress: float) -> Mapping[str, Tensor]:
            at(progress)
            for optimizer, rate in optimizers.values():
                set_rate(optimizer, rate * shape(progress))
            return take(step, batches[step])

        every = {**parts, **{label: optimizer for label, (optimizer, _) in optimizers.items()}}
        most = None if passes is None else -(-passes * len(self.images) // batch)
        self.run.stage(name, every, update, batch=batch, most=most, **options)


class Preset(ABC, Generic[M]):
    """A training's settings, as dataclass fields, and the methods that the job calls.

    terms: names of the loss terms that are logged in addition to the loss.
    """

    terms: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self) -> M:
        """Build an untrained model."""

    @abstractmethod
    def saved(self, model: M) -> StoredModel:
        """The part of the model that the model folder holds."""

    @abstractmethod
    def start(self, folder: Path | None) -> Start | None:
        """Read and check the initial weights; returns None for random ones.

        Raises InvalidModel or ArtifactMismatch if they cannot be read, and TrainingError
        if they do not fit this preset, or if it needs them and no folder is given.
        """

    def take_up(self, model: M, start: Start) -> None:
        """Replace the model's random weights by these."""
        model.load_state_dict(model.state_dict() | dict(start.weights))

    @property
    @abstractmethod
    def images_needed(self) -> int:
        """Smallest number of training images: a batch, and more than principal components."""

    @property
    def takes_targets(self) -> bool:
        """Whether the preset can learn from a teacher."""
        return False

    @property
    def takes_labels(self) -> bool:
        """Whether the preset learns labels."""
        return False

    @abstractmethod
    def learn(self, model: M, work: Work) -> None:
        """Run all stages of the training."""

    @abstractmethod
    def describe(self, model: M, tiny: Tensor) -> dict[str, Tensor]:
        """Map (n, 32, 32, 3) uint8 images to the rows they can be searched by, by name.

        Float rows are compared by cosine similarity, bool rows by Hamming distance.
        """

    def measure(self, model: M, sample: NDArray[np.uint8]) -> dict[str, float]:
        """Further metrics of images, held out of the training if there are enough."""
        return {}

    @abstractmethod
    def draw(self, model: M, sample: NDArray[np.uint8]) -> list[Drawing]:
        """Drawings for the report, of the same images."""

    def seconds_to_finish(self, model: M, work: Work) -> float:
        """Estimate the seconds that `finish` will take, with the untrained model."""
        return 0.0

    def finish(self, model: M, work: Work, folder: Path) -> None:
        """Write files for the model folder, other than weights, card and report, into `folder`."""


class AutoencoderPreset(Preset[A]):
    """A preset whose model is an autoencoder and is saved as it is."""

    def saved(self, model: A) -> StoredModel:
        return model

    def start(self, folder: Path | None) -> Start | None:
        return None if folder is None else self.start_from(folder)

    def start_from(self, folder: Path, *, free: tuple[str, ...] = ()) -> Start:
        """Read a trained model's weights. free: architecture settings that may differ.

        Raises as `start` does.
        """
        trained, card = read_model(folder)
        with torch.device("meta"):
            wanted = self.build()
        ours, theirs = wanted.architecture(), trained.architecture()
        same = {**theirs, **{name: ours[name] for name in free if name in ours}}
        if (trained.kind, same) != (wanted.kind, ours):
            raise TrainingError(
                f"{model_name(folder)} is a {trained.kind} model of {theirs}, from which this "
                f"preset cannot start; the preset trains a {wanted.kind} model of {ours}"
            )
        if card.preprocessing != PREPROCESSING:
            _log.warning(
                "%s %s, as the new model expects", folder, of_other_rules(card.preprocessing)
            )
        return Start(trained.state_dict(), card)

    def describe(self, model: A, tiny: Tensor) -> dict[str, Tensor]:
        return {"codes": model.code_logits(tiny) >= 0}

    def measure(self, model: A, sample: NDArray[np.uint8]) -> dict[str, float]:
        """PSNR of reconstructions, and the bits' mean imbalance and entropy.

        A bit's imbalance is the deviation of its share of ones from one half.
        """
        with torch.inference_mode():
            batches = [torch.from_numpy(sample[i : i + 256]) for i in range(0, len(sample), 256)]
            device = model.pixel_mean.device
            bits = torch.cat([model.code_logits(batch.to(device)) >= 0 for batch in batches])
            decoded = torch.cat([model.reconstruct(part) for part in bits.float().split(256)])
        levels = decoded.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        share = bits.float().mean(dim=0)
        entropy = (torch.special.entr(share) + torch.special.entr(1 - share)).mean() / math.log(2)
        return {
            "psnr_db": round(psnr_db(sample, levels), 2),
            "mean_bit_imbalance": round(float((share - 0.5).abs().mean()), 4),
            "mean_bit_entropy": round(float(entropy), 4),
        }

    def draw(self, model: A, sample: NDArray[np.uint8]) -> list[Drawing]:
        encoder = Encoder(model.cpu())
        codes = encoder.encode(sample)
        return [
            reconstruction_drawing(sample, encoder.reconstruct(codes[: len(sample)])),
            filter_drawing(self.filters(model)),
            *bit_drawings(codes, model.bits),
        ]

    @abstractmethod
    def filters(self, model: A) -> NDArray[np.float32]:
        """(n, side, side, 3): the filters of the first layer."""


def settings_of(preset: Any) -> dict[str, Any]:
    """A preset's fields by name, for the card."""
    return asdict(preset)
