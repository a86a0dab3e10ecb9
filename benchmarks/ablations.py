"""Compare the default training with alternatives, each trained for the same time.

    python -m benchmarks.ablations --minutes 3 [--widths 32 64 128] [--plot FILE] [NAME…]

Prints one row of docs/experiments.md for each trial: retrieval by the 256 trained bits of
the head, then by the code that is made of their main directions and of pixels (of 256
directions and no pixels if reconstruction is trained too). The images are CIFAR-10's
training images, with one seed. The speed of each trial is measured before the first
training, when nothing else should run, and gives the number of steps that fit into its
minutes; later load changes how long the trainings take and nothing else. If reconstruction
is trained, a decoder reads all bits of the head, and PSNR is measured on its output;
otherwise PSNR is that of the rounded coefficients, without a decoder. FILE: an SVG plot of
the code's mAP against PSNR, for each weight of reconstruction and for the default.
"""

import argparse
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.errors import TrainingError
from hashsearch.metrics import psnr_db
from hashsearch.models.coefficients import Coefficients
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from hashsearch.sources import DataFolders, dataset_at_hand
from hashsearch.sources.loading import load_labelled_images
from training.augment import Views, random_views
from training.binarize import binarize
from training.data import Batches, fit_standardization
from training.device import autocast, generator
from training.families import PRESETS
from training.families.convolutional import VIEWS, ConvolutionalPreset, optimizers
from training.objectives import coding_rate, contrastive, spread_and_alike, variance_lost
from training.optimizers import adam
from training.retrieval import Question, retrieval_by_bits
from training.schedule import cosine, set_rate
from training.sharpen import make_code
from training.transform_coding import fit_transform

# From the logits of each view, and the teacher's logits of each if there is one, to a loss.
Objective = Callable[[Sequence[Tensor], Sequence[Tensor] | None], Tensor]
_QUERIES_EVERY = 5  # of the 10,000 test images
_CHUNK = 500
_SHOWN = 4  # one image in four is decoded
_DEFAULT, _SHARED = "the default", "reconstruction from all bits, "
_MEASURED_S = 5.0  # time to measure a trial's speed


@dataclass(frozen=True, slots=True)
class Trial:
    """One row of the table, and how it differs from the default.

    views: number of views of each image; batch · views stays the same. teacher: whether a
    moving average of the weights gives the targets for the other view. muon: whether Muon
    trains the kernels; otherwise AdamW trains all weights. reconstruction: weight of the
    squared error of decoded images (a quarter of them, whole in one view); 0 for none.
    """

    name: str
    objective: Objective
    preset: ConvolutionalPreset
    views: int = 2
    teacher: bool = False
    muon: bool = True
    reconstruction: float = 0.0


def weighted(preset: ConvolutionalPreset) -> Objective:
    """The default's terms, with the preset's weights, over any number of views."""
    invariance, rate, contrast = preset.invariance, preset.rate, preset.contrast

    def objective(views: Sequence[Tensor], targets: Sequence[Tensor] | None) -> Tensor:
        if len(views) == 2 and targets is None and contrast:
            terms = spread_and_alike(*views)
            return (
                invariance * terms["invariance"]
                + rate * terms["rate"]
                + contrast * terms["contrast"]
            )
        others = views if targets is None else targets
        pairs = list(zip(views, [*others[1:], others[0]], strict=True))
        alike = [variance_lost(one, other) for one, other in pairs]
        spread = [-coding_rate(view) for view in views]
        apart = (
            [contrastive(one, other) for one, other in pairs]
            if contrast
            else [pairs[0][0].new_zeros(())]
        )
        means = [torch.stack(terms).mean() for terms in (alike, spread, apart)]
        return invariance * means[0] + rate * means[1] + contrast * means[2]

    return objective


def contrast_alone(views: Sequence[Tensor], targets: Sequence[Tensor] | None) -> Tensor:
    """SimCLR's loss on rounded bits."""
    return contrastive(views[0], views[1])


def barlow_twins(views: Sequence[Tensor], targets: Sequence[Tensor] | None) -> Tensor:
    """Cross-correlation of the two views' logits towards identity (Zbontar et al. 2021)."""
    one, two = ((view - view.mean(0)) / view.std(0) for view in views)
    correlation = one.T @ two / len(one)
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return 0.02 * ((1 - diagonal).square().sum() + 0.01 * others)


def vicreg(views: Sequence[Tensor], targets: Sequence[Tensor] | None) -> Tensor:
    """Variance, invariance and covariance (Bardes et al. 2022), weights 25, 25 and 1, ÷ 25."""
    loss = F.mse_loss(views[0], views[1])
    for view in views:
        loss = loss + F.relu(1 - (view.var(0) + 1e-4).sqrt()).mean() / 2
        covariance = torch.cov(view.T)
        others = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + others / len(covariance) / 25
    return loss


class _HalfOfEach(torch.autograd.Function):
    """Set each bit to 1 for the upper half of the batch (Li and van Gemert 2021)."""

    @staticmethod
    def forward(context, logits):  # type: ignore[no-untyped-def,override]
        ranks = logits.argsort(0).argsort(0)
        signs = (ranks >= len(logits) // 2).to(logits.dtype) * 2 - 1
        context.save_for_backward(logits, signs)
        return signs

    @staticmethod
    def backward(context, gradient):  # type: ignore[no-untyped-def,override]
        logits, signs = context.saved_tensors
        return gradient + 3 * (logits.tanh() - signs) / signs.numel()


def bi_half(views: Sequence[Tensor], targets: Sequence[Tensor] | None) -> Tensor:
    """The contrastive loss on bits that are balanced in every batch by construction."""
    signs = torch.cat([_HalfOfEach.apply(view) for view in views])
    similarity = signs @ signs.T / (signs.shape[1] * 0.2)
    similarity.fill_diagonal_(float("-inf"))
    return F.cross_entropy(similarity, torch.arange(len(signs)).roll(len(views[0])))


def trials(preset: ConvolutionalPreset) -> dict[str, Trial]:
    """All trials by name. preset: the default."""
    widths = preset.widths
    small = replace(preset, batch=64, views=Views(smallest=0.1))
    wide = replace(preset, widths=(widths[0], widths[1] * 3 // 2, widths[2] * 3 // 2))
    usual = weighted(preset)
    every = (
        Trial(_DEFAULT, usual, preset),
        Trial("AdamW throughout", usual, preset, muon=False),
        Trial("rate and invariance, no contrast", weighted(replace(preset, contrast=0)), preset),
        Trial("contrast threefold", weighted(replace(preset, contrast=1.5)), preset),
        Trial("contrast alone", contrast_alone, preset),
        Trial("Barlow Twins", barlow_twins, preset),
        Trial("VICReg", vicreg, preset),
        Trial("bi-half", bi_half, preset),
        Trial("4 views", usual, replace(preset, batch=128), views=4),
        Trial("8 small crops", usual, small, views=8),
        Trial("momentum teacher", usual, preset, teacher=True),
        Trial("batch 512", usual, replace(preset, batch=512)),
        Trial("wider from 8×8 on, half as much again", usual, wide),
        Trial("deeper, 1-1-1 blocks", usual, replace(preset, blocks=(1, 1, 1))),
        Trial("deeper, 0-2-2 blocks", usual, replace(preset, blocks=(0, 2, 2))),
        *(Trial(f"{_SHARED}{w}", usual, preset, reconstruction=w) for w in (1, 4, 16, 64)),
    )
    return {trial.name: trial for trial in every}


class Training:
    """A trial's model, optimizers and data."""

    def __init__(self, trial: Trial, images: NDArray[np.uint8]):
        torch.manual_seed(0)
        preset = trial.preset
        self.trial = trial
        depths = () if trial.reconstruction else preset.depths
        self.model = ConvolutionalAutoencoder(preset.widths, preset.blocks, depths).channels_last()
        fit_standardization(self.model, images)
        self.teacher = copy.deepcopy(self.model) if trial.teacher else None
        self.images = torch.from_numpy(images)
        self.batches = Batches(len(images), preset.batch, 0, "cpu")
        if trial.muon:
            kernels, others = optimizers(self.model, preset, "cpu")
            self.learners = [(kernels, preset.kernel_rate), (others, preset.learning_rate)]
        else:
            every = adam(self.model.parameters(), "cpu", decay=preset.weight_decay)
            self.learners = [(every, preset.learning_rate)]
        if trial.reconstruction and trial.muon:
            decoder = adam(self.model.decoder.parameters(), "cpu", decay=preset.weight_decay)
            self.learners.append((decoder, preset.decoder_rate))

    def take(self, step: int, steps: int) -> bool:
        """Take one step; returns whether its loss was finite."""
        for optimizer, rate in self.learners:
            set_rate(optimizer, rate * cosine(step / steps))
        tiny, random = self.images[self.batches[step]], generator("cpu", 0, VIEWS, step)
        views = [
            random_views(tiny, self.trial.preset.views, random) for _ in range(self.trial.views)
        ]
        shown = len(tiny) // _SHOWN if self.trial.reconstruction else 0
        views[0][:shown] = tiny[:shown].permute(0, 3, 1, 2)  # whole images are decoded
        pixels = self.model.standardize(torch.cat(views).permute(0, 2, 3, 1))
        loss = self._loss(pixels, shown)
        for optimizer, _ in self.learners:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer, _ in self.learners:
            optimizer.step()
        if self.teacher is not None:
            progress = step / steps
            _follow(self.teacher, self.model, 0.01 * (math.cos(math.pi * progress) + 1) / 2)
        return math.isfinite(loss.item())

    def _loss(self, pixels: Tensor, shown: int) -> Tensor:
        trial, preset = self.trial, self.trial.preset
        picture = None
        with autocast("cpu"):
            heads = _heads(self.model, pixels)
            if shown:
                picture = self.model.decode(binarize(heads[0][:shown].float()))
            taught: Sequence[Tensor | None] = [None, None]
            if self.teacher is not None:
                with torch.no_grad():
                    taught = _heads(self.teacher, pixels)
        losses = [
            trial.objective(
                logits.float().chunk(trial.views),
                None if target is None else target.float().chunk(trial.views),
            )
            for logits, target in zip(heads, taught, strict=True)
        ]
        loss = losses[0] + preset.address * losses[1]
        if picture is not None:
            error = F.mse_loss(picture.float(), pixels[:shown])
            loss = loss + trial.reconstruction * error
        return loss


def _heads(model: ConvolutionalAutoencoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    features = model.features(pixels)
    return model.head(features), model.address(features)


def _follow(teacher: nn.Module, model: nn.Module, rate: float) -> None:
    with torch.no_grad():
        for old, new in zip(teacher.parameters(), model.parameters(), strict=True):
            old.lerp_(new, rate)
        for old, new in zip(teacher.buffers(), model.buffers(), strict=True):
            old.copy_(new)


def seconds_a_step(trial: Trial, images: NDArray[np.uint8]) -> float:
    """Measure the speed of a trial in a few steps, whose result is dropped."""
    training = Training(trial, images)
    training.take(0, 1000)  # the first one is slow, since it allocates memory
    taken, started = 0, time.monotonic()
    while (spent := time.monotonic() - started) < _MEASURED_S:
        training.take(taken, 1000)
        taken += 1
    return spent / taken


def row(
    trial: Trial, question: Question, steps: int, transform: Coefficients
) -> tuple[str, tuple[float, float] | None]:
    """Train and measure. transform: fitted to the gallery, as in the default.

    Returns the row, and PSNR and mAP of the code, or None if there is no code to measure.
    """
    training = Training(trial, question.gallery)
    seen = trial.preset.batch * trial.views
    for step in range(steps):
        if not training.take(step, steps):
            lost = f"| {trial.name} | no number after {step * seen // 1000:,}k |" + " – |" * 7
            return lost, None
    model = training.model.eval()
    if not trial.reconstruction:
        model.transform.load_state_dict(transform.state_dict())
    try:
        make_code(model, question.gallery, trial.preset.directions)
    except TrainingError:
        return f"| {trial.name} | {steps * seen // 1000:,}k, all alike |" + " – |" * 7, None
    measured = [_bits(model, images) for images in (question.gallery, question.queries)]
    heads, codes = zip(*measured, strict=True)
    head, code = (retrieval_by_bits(question, *bits) for bits in (heads, codes))
    with torch.inference_mode():
        bits = torch.from_numpy(heads[1] if trial.reconstruction else codes[1]).float()
        decoded = model.reconstruct(bits)  # a decoder not trained adds nothing
    levels = decoded.round().clamp(0, 255).to(torch.uint8).numpy()
    psnr = psnr_db(question.queries, levels)
    cells = f"{steps * seen // 1000:,}k | {_cells(head)} | {_cells(code)} | {psnr:.1f} dB"
    return f"| {trial.name} | {cells} |", (psnr, _three(code)[-1])


def trade_off(points: dict[str, tuple[float, float]]) -> Figure:
    """Plot a line through the weights of reconstruction, and the default as a point.

    points: PSNR and mAP by name of the trial.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    weights = {
        name.removeprefix(_SHARED): point
        for name, point in points.items()
        if name.startswith(_SHARED)
    }
    axes.plot(*zip(*weights.values(), strict=True), "o-", label="weights, all bits for both")
    for weight, point in weights.items():
        axes.annotate(weight, point, (6, 5), textcoords="offset points")
    if _DEFAULT in points:
        label = "bits of its own for the picture, no decoder"
        axes.plot(*points[_DEFAULT], "o", color="C1", label=label)
    axes.margins(0.1)
    axes.legend(loc="lower left")
    axes.set(xlabel="PSNR of CIFAR-10's test images, dB", ylabel="mAP@1000")
    return figure


def _bits(
    model: ConvolutionalAutoencoder, images: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(n, 256) uint8 each: the bits of the head, and those of the code."""
    pairs = []
    with torch.inference_mode():
        for start in range(0, len(images), _CHUNK):
            pixels = model.standardize(torch.from_numpy(images[start : start + _CHUNK]))
            features = model.features(pixels)
            levels = model.transform.levels(model.transform.of(pixels.flatten(1)))
            picture_bits = model.transform.to_bits(levels) > 0
            code = torch.cat((picture_bits, model.code(features) >= 0), dim=1)
            pairs.append((model.head(features) >= 0, code))
    head, code = (torch.cat(part).numpy().astype(np.uint8) for part in zip(*pairs, strict=True))
    return head, code


def _three(found: dict[str, float]) -> list[float]:
    """P@1, P@10 and mAP@1000; at lower ranks if the gallery is small."""
    return [value for name, value in found.items() if name != "knn_accuracy"]


def _cells(found: dict[str, float]) -> str:
    return " | ".join(f"{value:.3f}".removeprefix("0") for value in _three(found))


def main() -> None:
    preset = PRESETS["conv256"]
    assert isinstance(preset, ConvolutionalPreset)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--widths", type=int, nargs=3, metavar="N", default=preset.widths)
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    every = trials(replace(preset, widths=tuple(options.widths)))
    unknown = set(options.names) - set(every)
    if unknown:
        parser.error(f"unknown trials: {', '.join(unknown)}; the trials are {', '.join(every)}")
    chosen = [every[name] for name in options.names or every]
    folders = DataFolders.of_environment()
    splits = [dataset_at_hand("cifar10", split, folders) for split in ("train", "test")]
    gallery, queries = (load_labelled_images(split) for split in splits if split is not None)
    question = Question("cifar10", *gallery, *(part[::_QUERIES_EVERY] for part in queries))
    steps = [
        int(options.minutes * 60 / seconds_a_step(trial, question.gallery)) for trial in chosen
    ]
    measures = ["P@1", "P@10", "mAP@1000"]
    model = ConvolutionalAutoencoder(preset.widths, preset.blocks, preset.depths)
    fit_standardization(model, question.gallery)
    fit_transform(model, question.gallery)
    columns = ["trial", "views", *measures, *(f"{name}, code" for name in measures), "PSNR"]
    for cells in (columns, ["---"] * len(columns)):
        print(f"| {' | '.join(cells)} |", flush=True)
    points = {}
    for trial, count in zip(chosen, steps, strict=True):
        cells, point = row(trial, question, count, model.transform)
        print(cells, flush=True)
        if point:
            points[trial.name] = point
    if options.plot:
        trade_off(points).savefig(options.plot, metadata={"Date": None})


if __name__ == "__main__":
    main()
