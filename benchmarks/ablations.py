"""The default's training and what could be in its place, each for the same wall time.

    python -m benchmarks.ablations --minutes 3 [NAME…]

Prints a row of docs/experiments.md a trial: retrieval and pictures as trained, then
retrieval by the sharpened code, for which no decoder is trained here. CIFAR-10's
training images, one seed; the learning rate follows the clock, so that its schedule
ends with the time. The trials run one after the other: nothing else should.
"""

import argparse
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashsearch.codes import unpack_bits
from hashsearch.encoder import Encoder
from hashsearch.metrics import psnr_db
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from hashsearch.sources import DataFolders, dataset_at_hand
from training.contrast import bits_to_decode, draw_views, optimizers
from training.data import Batches, fit_standardization, load_labelled_images
from training.device import generator, has_bfloat16
from training.objectives import coding_rate, contrastive, spread_and_alike, variance_lost
from training.presets import PRESETS, ConvolutionalPreset, Views
from training.retrieval import Labelled, retrieval_by_bits
from training.schedule import set_rate
from training.sharpen import sharpen

# Logits of each view, and of each view by the teacher where there is one, to a loss.
Objective = Callable[[Sequence[Tensor], Sequence[Tensor] | None], Tensor]
_QUERIES_EVERY = 5  # of the 10,000 test images
_TICKS = 10_000  # of the schedule


@dataclass(frozen=True, slots=True)
class Trial:
    """One row: what differs from the default.

    views: of each image; batch · views stays the same. teacher: whether a
    moving average of the weights gives what the other view should be like.
    muon: whether it trains the encoder's kernels; AdamW trains all otherwise.
    whole: whether what is decoded are whole images; random views otherwise.
    """

    name: str
    objective: Objective
    preset: ConvolutionalPreset
    views: int = 2
    teacher: bool = False
    muon: bool = True
    whole: bool = True


def weighted(invariance: float = 4.0, rate: float = 1 / 50, contrast: float = 0.5) -> Objective:
    """The default's terms, with these weights, over any number of views."""

    def objective(views: Sequence[Tensor], targets: Sequence[Tensor] | None) -> Tensor:
        if len(views) == 2 and targets is None:
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


_DEFAULT = PRESETS["conv256"]
assert isinstance(_DEFAULT, ConvolutionalPreset)
TRIALS = {
    trial.name: trial
    for trial in (
        Trial("the default", weighted(), _DEFAULT),
        Trial("AdamW throughout", weighted(), _DEFAULT, muon=False),
        Trial("random views decoded", weighted(), _DEFAULT, whole=False),
        Trial("no bits for the picture", weighted(), replace(_DEFAULT, pictured=0)),
        Trial("rate and invariance, no contrast", weighted(contrast=0), _DEFAULT),
        Trial("contrast threefold", weighted(contrast=1.5), _DEFAULT),
        Trial("contrast alone", contrast_alone, _DEFAULT),
        Trial("Barlow Twins", barlow_twins, _DEFAULT),
        Trial("VICReg", vicreg, _DEFAULT),
        Trial("bi-half", bi_half, _DEFAULT),
        Trial("4 views", weighted(), replace(_DEFAULT, batch=128, decoded=32), views=4),
        Trial(
            "8 small crops",
            weighted(),
            replace(_DEFAULT, batch=64, decoded=16, views=Views(smallest=0.1)),
            views=8,
        ),
        Trial("momentum teacher", weighted(), _DEFAULT, teacher=True),
        Trial("batch 512", weighted(), replace(_DEFAULT, batch=512, decoded=128)),
        Trial("wider, 64-192-384", weighted(), replace(_DEFAULT, widths=(64, 192, 384))),
        Trial("deeper, 1-1-1 blocks", weighted(), replace(_DEFAULT, blocks=(1, 1, 1))),
        Trial("deeper, 0-2-2 blocks", weighted(), replace(_DEFAULT, blocks=(0, 2, 2))),
    )
}


def run(trial: Trial, labelled: Labelled, minutes: float) -> str:
    """Train for so long; returns the table's row."""
    torch.manual_seed(0)
    preset = trial.preset
    model = ConvolutionalAutoencoder(preset.widths, preset.blocks).channels_last()
    fit_standardization(model, labelled.gallery)
    teacher = copy.deepcopy(model) if trial.teacher else None
    learners = _learners(trial, model)
    shown = preset if trial.whole else replace(preset, decoded=0)
    batches = Batches(labelled.gallery, preset.batch, 0)
    started, step = time.monotonic(), 0
    while (progress := (time.monotonic() - started) / (minutes * 60)) < 1:
        for optimizer, rate in learners:
            set_rate(optimizer, rate, int(progress * _TICKS), _TICKS)
        tiny, random = torch.from_numpy(batches[step]), generator("cpu", 0, step)
        views = draw_views(tiny, shown, random, trial.views)
        pixels = model.standardize(views.permute(0, 2, 3, 1))
        loss = _loss(trial, model, teacher, pixels)
        for optimizer, _ in learners:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer, _ in learners:
            optimizer.step()
        if teacher is not None:
            _follow(teacher, model, rate=0.01 * (math.cos(math.pi * progress) + 1) / 2)
        step += 1
    return _row(trial, model, labelled, step)


def _learners(
    trial: Trial, model: ConvolutionalAutoencoder
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Optimizers, and the full rate of each."""
    preset = trial.preset
    if trial.muon:
        muon, adam = optimizers(model, preset, "cpu")
        return [(muon, preset.kernel_rate), (adam, preset.learning_rate)]
    adam = torch.optim.AdamW(model.parameters(), weight_decay=preset.weight_decay, fused=True)
    return [(adam, preset.learning_rate)]


def _loss(
    trial: Trial, model: ConvolutionalAutoencoder, teacher: nn.Module | None, pixels: Tensor
) -> Tensor:
    preset = trial.preset
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16("cpu")):
        code, address = _heads(model, pixels)
        picture = model.decode(bits_to_decode(code[: preset.decoded], preset))
        heads = [code[:, preset.pictured :], address]
        taught: list[Tensor | None] = [None, None]
        if teacher is not None:
            with torch.no_grad():
                code, address = _heads(teacher, pixels)
            taught = [code[:, preset.pictured :], address]
    losses = [
        trial.objective(
            logits.float().chunk(trial.views),
            None if target is None else target.float().chunk(trial.views),
        )
        for logits, target in zip(heads, taught, strict=True)
    ]
    error = F.mse_loss(picture.float(), pixels[: preset.decoded])
    return losses[0] + preset.address * losses[1] + preset.reconstruction * error


def _heads(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(model, ConvolutionalAutoencoder)
    features = model.features(pixels)
    return model.code(features), model.address(features)


def _follow(teacher: nn.Module, model: nn.Module, rate: float) -> None:
    with torch.no_grad():
        for old, new in zip(teacher.parameters(), model.parameters(), strict=True):
            old.lerp_(new, rate)
        for old, new in zip(teacher.buffers(), model.buffers(), strict=True):
            old.copy_(new)


def _row(trial: Trial, model: ConvolutionalAutoencoder, labelled: Labelled, steps: int) -> str:
    seen = steps * trial.preset.batch * trial.views
    found, psnr = _measured(model, labelled)
    sharpen(model, labelled.gallery, trial.preset.pictured, trial.preset.directions)
    sharpened, _ = _measured(model, labelled)
    return f"| {trial.name} | {seen // 1000:,}k | {found} | {psnr:.1f} dB | {sharpened} |"


def _measured(model: ConvolutionalAutoencoder, labelled: Labelled) -> tuple[str, float]:
    """What the codes find, as cells of the table, and the PSNR of what they decode to."""
    encoder = Encoder(model, precision="bfloat16" if has_bfloat16("cpu") else "float32")
    codes = encoder.encode(labelled.queries)
    gallery, queries = (
        unpack_bits(some, model.bits) for some in (encoder.encode(labelled.gallery), codes)
    )
    found = retrieval_by_bits(labelled, gallery, queries).values()
    cells = " | ".join(f"{value:.3f}".removeprefix("0") for value in found)
    return cells, psnr_db(labelled.queries, encoder.reconstruct(codes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TRIALS))
    options = parser.parse_args()
    folders = DataFolders.of_environment()
    splits = [dataset_at_hand("cifar10", split, folders) for split in ("train", "test")]
    gallery, queries = (load_labelled_images(split) for split in splits if split is not None)
    labelled = Labelled("cifar10", *gallery, *(part[::_QUERIES_EVERY] for part in queries))
    measures = ["P@1", "P@10", "mAP@1000"]
    columns = ["trial", "views", *measures, "PSNR", *(f"{name}, sharpened" for name in measures)]
    for cells in (columns, ["---"] * len(columns)):
        print(f"| {' | '.join(cells)} |", flush=True)
    for name in options.names or TRIALS:
        print(run(TRIALS[name], labelled, options.minutes), flush=True)


if __name__ == "__main__":
    main()
