"""The teacher: a large network trained on views of images, without labels.

Its features are not used for search. `train conv256 --teacher` learns from the targets that
are saved in the teacher's folder.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.errors import TrainingError
from hashsearch.models.autoencoder import StoredModel
from hashsearch.models.card import model_name, read_card
from training.augment import Views, random_views
from training.device import autocast, seed_of
from training.families.base import Preset, Start, Work
from training.measure import seconds_of
from training.optimizers import adam, descend_sum, kernels_and_others, muon
from training.portable import has_portable, read_portable
from training.pretext import PRETEXTS, Pretext, shapes_of
from training.resnet import Teacher
from training.run import PORTABLE
from training.schedule import falling, plateau
from training.targets import CHUNK, FILE, averaged_features, make_targets, write_targets
from training.training_report import Drawing, filter_drawing

_VIEWS, _TARGETS = range(2)  # random streams, see Work.stage
# SimCLR's and BYOL's published augmentations, for small images.
_STRONG = Views(smallest=0.08, saturation=0.2, hue=0.1, tint=0.0)


@dataclass(frozen=True)
class TeacherPreset(Preset[Pretext]):
    """Settings of a teacher.

    width: see Teacher. pretext: the objective, a name in PRETEXTS; embedding: see Pretext.
    steps: updates on `batch` images with two views each. momentum: of the slow copy's
    moving average, per step; it rises to 1 as the learning rate falls. optimizer: "muon" for
    the kernels with AdamW for the other weights, or "sgd" for all weights, with Nesterov
    momentum 0.9. rate, decay: learning rate and weight decay of Muon or SGD; other_rate:
    AdamW's learning rate. views, other_views: augmentations of the first and second view.
    """

    width: int = 64
    pretext: str = "vicreg"
    embedding: int = 512
    steps: int = 20_000
    batch: int = 512
    momentum: float = 0.996
    optimizer: str = "muon"
    rate: float = 5e-3
    decay: float = 0.02
    other_rate: float = 2e-3
    views: Views = field(default_factory=lambda: _STRONG)
    other_views: Views = field(default_factory=lambda: replace(_STRONG, solarise=0.2))

    terms = ("invariance", "variance", "covariance")

    def build(self) -> Pretext:
        model = PRETEXTS[self.pretext](self.width, self.embedding)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def saved(self, model: Pretext) -> StoredModel:
        return model.teacher

    def start(self, folder: Path | None) -> Start | None:
        """Read a teacher's weights from before its learning rate fell."""
        if folder is None:
            return None
        card = read_card(folder)
        if card.kind != Teacher.kind:
            raise TrainingError(
                f"{model_name(folder)} is a {card.kind} model, from which this preset cannot "
                f"start; the preset trains a {Teacher.kind}"
            )
        tensors, _ = read_portable(folder / PORTABLE)
        with torch.device("meta"):
            wanted = self.build().portable()
        if shapes_of(wanted) != shapes_of(tensors):
            settings = card.training.get("settings", {})
            raise TrainingError(
                f"{model_name(folder)} is a {card.kind} of width "
                f"{card.architecture.get('width')} trained by {settings.get('pretext')}, from "
                f"which this preset cannot start; the preset trains one of width {self.width} by "
                f"{self.pretext}"
            )
        return Start(tensors, card)

    def take_up(self, model: Pretext, start: Start) -> None:
        model.load_portable(dict(start.weights))

    @property
    def images_needed(self) -> int:
        return self.batch

    def learn(self, model: Pretext, work: Work) -> None:
        learn_pretext(model, self, work)

    def describe(self, model: Pretext, tiny: Tensor) -> dict[str, Tensor]:
        teacher = model.teacher
        return {"features": teacher.features(teacher.standardize(tiny))}

    def draw(self, model: Pretext, sample: NDArray[np.uint8]) -> list[Drawing]:
        kernels = next(model.teacher.trunk.parameters()).detach().permute(0, 2, 3, 1)
        weights = kernels.cpu().numpy()
        return [filter_drawing(weights.repeat(8, axis=1).repeat(8, axis=2))]

    def seconds_to_finish(self, model: Pretext, work: Work) -> float:
        sample = work.images[:CHUNK]
        spent = seconds_of(
            lambda: averaged_features(model.teacher, sample, seed=0, device=work.device)
        )
        return spent * (len(work.images) + len(work.held_out)) / len(sample)

    def finish(self, model: Pretext, work: Work, folder: Path) -> None:
        """Write the targets, and the portable checkpoint that a longer training can start from."""
        images = np.concatenate((work.images, work.held_out))
        seed = seed_of(work.seed, _TARGETS)
        rows = make_targets(model.teacher, images, seed=seed, device=work.device)
        write_targets(folder / FILE, images, rows)
        if has_portable(work.run.portable_folder):
            shutil.copytree(work.run.portable_folder, folder / PORTABLE)
        else:
            print("the teacher has no portable checkpoint: it was removed", file=sys.stderr)


def learn_pretext(model: Pretext, preset: TeacherPreset, work: Work) -> None:
    """Train the online network on two views of each image; the slow copy follows."""
    images = work.resident()
    optimizers = dict(_optimizers(model, preset, work.device))
    share = torch.zeros((), device=work.device)  # see Pretext.follow

    def compute(rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        tiny = images[rows]
        one, two = (
            model.teacher.standardize(random_views(tiny, views, random).permute(0, 2, 3, 1))
            for views in (preset.views, preset.other_views)
        )
        with autocast(work.device):
            terms = model.terms(one, two)
        measured = descend_sum([optimizer for optimizer, _ in optimizers.values()], terms)
        model.follow(share)
        return measured

    def at(progress: float) -> None:
        share.fill_((1 - preset.momentum) * falling(progress))

    model.train()
    with compiled((model.teacher, model.online["encoder"]), work.device):
        work.stage(
            "views",
            {"model": model},
            optimizers,
            compute,
            batch=preset.batch,
            steps=preset.steps,
            part=_VIEWS,
            shape=plateau,
            at=at,
            carried=model,
        )


@contextmanager
def compiled(encoders: Sequence[Any], device: str) -> Iterator[None]:
    """On a GPU with a C compiler at hand, run the encoders' `features` under torch.compile.

    It fuses normalisation and activation: a step takes three quarters of the time
    (docs/experiments.md). `features` is compiled, since the forward method of nn.Sequential
    would be compiled in pieces.
    """
    pays = torch.device(device).type == "cuda" and any(map(shutil.which, ("cc", "gcc", "clang")))
    for encoder in encoders if pays else ():
        encoder.features = torch.compile(encoder.features)
    try:
        yield
    finally:
        for encoder in encoders if pays else ():
            del encoder.features  # uncovers the method


def _optimizers(
    model: Pretext, preset: TeacherPreset, device: str
) -> Iterator[tuple[str, tuple[torch.optim.Optimizer, float]]]:
    """Optimizers by name, each with its full learning rate."""
    kernels, others = kernels_and_others(model.learners())
    assert preset.optimizer in ("muon", "sgd"), preset.optimizer
    if preset.optimizer == "muon":
        yield "muon", (muon(kernels, device, decay=preset.decay), preset.rate)
        yield "adam", (adam(others, device, decay=0.0), preset.other_rate)
        return
    groups: list[dict[str, Any]] = [
        {"params": kernels, "weight_decay": preset.decay},
        {"params": others},
    ]
    sgd = torch.optim.SGD(
        groups, lr=torch.zeros((), device=device), momentum=0.9, nesterov=True, fused=True
    )
    yield "sgd", (sgd, preset.rate)


_TEACHER = TeacherPreset()
_BYOL = replace(_TEACHER, pretext="byol", embedding=256)

PRESETS = {
    "teacher": _TEACHER,
    # For two cores and for experiments.
    "teacher-half": replace(_TEACHER, width=32),
    "teacher-quarter": replace(_TEACHER, width=16, batch=256),
    # Alternatives to VICReg and to Muon. SGD's rate is lightly's 0.06 for 128 images, scaled.
    "teacher-byol": _BYOL,
    "teacher-byol-sgd": replace(_BYOL, optimizer="sgd", rate=0.24, decay=5e-4),
}
