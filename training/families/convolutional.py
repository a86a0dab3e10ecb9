"""The default: a convolutional autoencoder with codes that are invariant to augmentations."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.errors import TrainingError
from hashsearch.models.convolutional import ENCODER, ConvolutionalAutoencoder
from training.augment import Views, flipped, random_views
from training.device import autocast
from training.families.base import AutoencoderPreset, Start, Work
from training.likeness import Likeness, sharpness, soft_bits
from training.muon import Muon
from training.objectives import coding_rate, mean_log_error, spread_and_alike, variance_lost
from training.optimizers import adam, descend, descend_sum, kernels_and_others, muon
from training.sharpen import choose_code, make_code
from training.transform_coding import fit_transform

VIEWS, _DECODER = 3, 4  # random streams, see Work.stage
_ENCODER_SHARE = 0.85  # of a time budget; the decoder gets the rest


# What happens to pictures that are passed on, and mild crops.
_COPIES = Views(smallest=0.6, jitter=0.5, grey=0.0, noise=15.0, recompress=0.7)


@dataclass(frozen=True)
class ConvolutionalPreset(AutoencoderPreset[ConvolutionalAutoencoder]):
    """Settings of a convolutional autoencoder.

    widths, blocks, depths: see ConvolutionalAutoencoder. steps: updates on `batch` images
    with two views each; with a teacher, the second views are `other_views`.
    kernel_rate, kernel_decay: Muon's learning rate and weight decay, for the kernels;
    learning_rate, weight_decay: AdamW's, for the encoder's other weights.
    Weights of the loss terms: invariance, rate and contrast (see objectives.py) on the head;
    address, of the sum of the three on the address. With a teacher (see likeness.py):
    student_rate on head, code and address, student_invariance on head and code, and address.
    directions: see sharpen.py, which then computes the code from the head. decoder_steps:
    final updates of the decoder alone, on the codes of `decoder_batch` uncropped images,
    mirrored at random; decoder_rate: AdamW's learning rate in them.
    """

    widths: tuple[int, int, int]
    blocks: tuple[int, int, int]
    depths: tuple[tuple[int, int], ...]
    steps: int
    decoder_steps: int
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    kernel_rate: float = 1e-2
    kernel_decay: float = 0.1
    invariance: float = 4.0
    rate: float = 1 / 50
    contrast: float = 0.5
    address: float = 0.1
    student_rate: float = 1 / 500
    student_invariance: float = 1.0
    directions: float = 60.0
    decoder_batch: int = 128
    decoder_rate: float = 1e-3
    views: Views = field(default_factory=Views)
    other_views: Views = field(default_factory=lambda: _COPIES)

    terms = (
        *("invariance", "rate", "contrast"),
        *("cosine", "features", "head", "code", "address"),
    )

    @property
    def takes_targets(self) -> bool:
        return self.steps > 0

    def build(self) -> ConvolutionalAutoencoder:
        return ConvolutionalAutoencoder(self.widths, self.blocks, self.depths).channels_last()

    def start(self, folder: Path | None) -> Start | None:
        """Read a trained model's encoder. Its depths may differ: code and decoder are remade."""
        if folder is None:
            if not self.steps:
                raise TrainingError(
                    "this preset remakes the code of a trained model; name the model with --from"
                )
            return None
        start = self.start_from(folder, free=("depths",))
        kept = (*ENCODER, "pixel_mean", "pixel_std")
        parts = {n: part for n, part in start.weights.items() if n.split(".")[0] in kept}
        return Start(parts, start.card)

    @property
    def images_needed(self) -> int:
        components = sum(count for count, _ in self.depths)
        return max(self.batch if self.steps else 1, self.decoder_batch, components + 1)

    def learn(self, model: ConvolutionalAutoencoder, work: Work) -> None:
        if work.targets is not None:
            learn_likeness(model, self, work)
        elif self.steps:
            learn_views(model, self, work)
        refine_decoder(model, self, work)

    def describe(self, model: ConvolutionalAutoencoder, tiny: Tensor) -> dict[str, Tensor]:
        pixels = model.standardize(tiny)
        features = model.features(pixels)
        return {
            "features": features,
            "codes": model.code_of(pixels, features) >= 0,
            "addresses": model.address(features) >= 0,
        }

    def filters(self, model: ConvolutionalAutoencoder) -> NDArray[np.float32]:
        kernels = next(model.trunk.parameters()).detach().permute(0, 2, 3, 1).cpu().numpy()
        enlarged: NDArray[np.float32] = kernels.repeat(6, axis=1).repeat(6, axis=2)
        return enlarged


# benchmarks/depths.py chose the depths on CIFAR-10's training images: it gives bits one by one
# to the component whose error one more bit reduces most.
_CONV = ConvolutionalPreset(
    widths=(64, 128, 256),
    blocks=(0, 1, 1),
    depths=((1, 5), (4, 4), (6, 3), (19, 2), (19, 1)),
    steps=20_000,
    decoder_steps=20_000,
)

PRESETS = {
    "conv256": _CONV,
    # For a GPU. A student compares the 2,048 images of a batch with each other.
    "conv256-large-batch": replace(_CONV, batch=1024),
    # Remakes the code of a trained conv256, given with --from, and trains a new decoder.
    "conv256-reread": replace(_CONV, steps=0),
}


def learn_views(model: ConvolutionalAutoencoder, preset: ConvolutionalPreset, work: Work) -> None:
    """Train trunk, head and address on two views of each image."""
    images = work.resident()
    kernels, others = optimizers(model, preset, work.device)

    def compute(rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        views = [random_views(images[rows], preset.views, random) for _ in range(2)]
        pixels = model.standardize(torch.cat(views).permute(0, 2, 3, 1))
        with autocast(work.device):
            features = model.features(pixels)
            head, address = model.head(features), model.address(features)
        terms = _weighted(head, preset)
        terms["address"] = preset.address * _total(_weighted(address, preset))
        return descend_sum([kernels, others], terms)

    work.stage(
        "views",
        {"model": model},
        {"muon": (kernels, preset.kernel_rate), "adam": (others, preset.learning_rate)},
        compute,
        batch=preset.batch,
        steps=preset.steps,
        part=VIEWS,
        share=_ENCODER_SHARE,
    )


def learn_likeness(
    model: ConvolutionalAutoencoder, preset: ConvolutionalPreset, work: Work
) -> None:
    """Train trunk, head, code and address on two views of each image and a teacher's targets."""
    assert work.targets is not None
    images = work.resident()
    heads = {"head": model.head, "code": model.code, "address": model.address}
    likeness = Likeness(work.targets.of(work.images, work.device), _n_features(model))
    kernels, others = optimizers(model, preset, work.device, beside=likeness)
    sharp = torch.ones((), device=work.device)

    def compute(rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        drawn = (preset.views, preset.other_views)
        views = torch.cat([random_views(images[rows], views, random) for views in drawn])
        with autocast(work.device):
            features = model.features(model.standardize(views.permute(0, 2, 3, 1)))
            logits = {name: head(features).float() for name, head in heads.items()}
        bits = {name: soft_bits(logits[name], sharp) for name in ("code", "address")}
        outputs = {"head": logits["head"], **bits}
        terms = likeness.terms(rows.repeat(2), features.float(), outputs, random)
        for name in heads:
            terms[name] = terms[name] - preset.student_rate * coding_rate(logits[name])
        for name in ("head", "code"):  # the few bits of an address would become equal
            one, two = outputs[name].chunk(2)
            terms[name] = terms[name] + preset.student_invariance * variance_lost(one, two)
        terms["address"] = preset.address * terms["address"]
        return descend_sum([kernels, others], terms)

    def at(progress: float) -> None:
        sharp.fill_(sharpness(progress))

    work.stage(
        "likeness",
        {"model": model, "likeness": likeness},
        {"muon": (kernels, preset.kernel_rate), "adam": (others, preset.learning_rate)},
        compute,
        batch=preset.batch,
        steps=preset.steps,
        part=VIEWS,
        at=at,
        share=_ENCODER_SHARE,
    )


def refine_decoder(
    model: ConvolutionalAutoencoder, preset: ConvolutionalPreset, work: Work
) -> None:
    """Compute the code in closed form, then train only the decoder, on codes of uncropped images.

    The loss is the geometric mean over images of the mean squared error of standardised
    pixels.
    """
    model.eval()  # so that the codes equal those of the finished model
    images = work.resident()
    optimizer = adam(model.decoder.parameters(), work.device, decay=0.0)

    def prepare() -> None:
        fit_transform(model, work.images)
        if work.targets is None:
            make_code(model, work.images, preset.directions)
            return
        arguments = model, work.images, preset.directions, work.targets, work.held_out
        work.run.notes["code"] = "as trained" if choose_code(*arguments) else "made of the head"

    def compute(rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        tiny = flipped(images[rows], random)
        with torch.no_grad():
            bits = (model.code_logits(tiny) >= 0).float()
        with autocast(work.device):
            picture = model.decode(bits)
        error = descend([optimizer], mean_log_error(picture, model.standardize(tiny)))
        return {"loss": error.exp()}

    work.stage(
        "decoder",
        {"model": model},
        {"adam": (optimizer, preset.decoder_rate)},
        compute,
        batch=preset.decoder_batch,
        steps=preset.decoder_steps,
        part=_DECODER,
        prepare=prepare,
        scale=0.0,
    )


def optimizers(
    model: ConvolutionalAutoencoder,
    preset: ConvolutionalPreset,
    device: str,
    beside: nn.Module | None = None,
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the encoder's kernels and matrices, AdamW for its other weights and `beside`.

    beside: a module that is trained with the encoder. Only with it is the code trained too;
    otherwise the code is computed from the head afterwards.
    """
    parts = ENCODER if beside is None else (*ENCODER, "code")
    encoder = [w for name, w in model.named_parameters() if name.split(".")[0] in parts]
    kernels, others = kernels_and_others(encoder)
    if beside is not None:
        others += beside.parameters()
    return (
        muon(kernels, device, decay=preset.kernel_decay),
        adam(others, device, decay=preset.weight_decay),
    )


def _weighted(logits: Tensor, preset: ConvolutionalPreset) -> dict[str, Tensor]:
    terms = spread_and_alike(*logits.float().chunk(2))
    return {name: getattr(preset, name) * term for name, term in terms.items()}


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _n_features(model: ConvolutionalAutoencoder) -> int:
    linear = model.head[0]
    assert isinstance(linear, nn.Linear)
    return linear.in_features
