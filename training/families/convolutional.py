"""The default: a convolutional autoencoder with codes that are invariant to augmentations."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.errors import TrainingError
from hashsearch.models.convolutional import ENCODER, ConvolutionalAutoencoder
from training.augment import Views, flipped, random_views
from training.budget import Stateful
from training.device import autocast
from training.families.base import AutoencoderPreset, Start, Work
from training.likeness import Likeness, sharpness, soft_bits
from training.muon import Muon
from training.objectives import coding_rate, mean_log_error, spread_and_alike, variance_lost
from training.optimizers import adam, descend, descend_sum, kernels_and_others, muon
from training.sharpen import choose_code, make_code
from training.step import Compute
from training.transform_coding import fit_transform

VIEWS, _DECODER = 3, 4  # random streams, see Work.stage


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
    directions: see sharpen.py, which then computes the code from the head. encoder_share: the
    encoder's of a time budget; the decoder gets the rest. decoder_steps: final updates of the
    decoder alone, on the codes of `decoder_batch` uncropped images, mirrored at random;
    decoder_rate: AdamW's learning rate in them.
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
    encoder_share: float = 0.85
    decoder_batch: int = 128
    decoder_rate: float = 1e-3
    views: Views = field(default_factory=Views)
    other_views: Views = field(default_factory=lambda: _COPIES)

    terms: ClassVar[tuple[str, ...]] = (
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

    def finish_code(self, model: ConvolutionalAutoencoder, work: Work) -> None:
        """Compute in closed form what is not trained of the code."""
        fit_transform(model, work.images)
        if work.targets is None:
            make_code(model, work.images, self.directions)
            return
        arguments = model, work.images, self.directions, work.targets, work.held_out
        work.run.notes["code"] = "as trained" if choose_code(*arguments) else "made of the head"

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
CONV = ConvolutionalPreset(
    widths=(64, 128, 256),
    blocks=(0, 1, 1),
    depths=((1, 5), (4, 4), (6, 3), (19, 2), (19, 1)),
    steps=20_000,
    decoder_steps=20_000,
)

PRESETS = {
    "conv256": CONV,
    # For a GPU. A student compares the 2,048 images of a batch with each other.
    "conv256-large-batch": replace(CONV, batch=1024),
    # Remakes the code of a trained conv256, given with --from, and trains a new decoder.
    "conv256-reread": replace(CONV, steps=0),
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
        terms = view_terms(preset, head) | {
            "address": preset.address * total(view_terms(preset, address))
        }
        return descend_sum([kernels, others], terms)

    encoder_stage("views", {"model": model}, (kernels, others), compute, preset, work)


def learn_likeness(
    model: ConvolutionalAutoencoder, preset: ConvolutionalPreset, work: Work
) -> None:
    """Train trunk, head, code and address on two views of each image and a teacher's targets."""
    assert work.targets is not None
    images = work.resident()
    likeness = Likeness(work.targets.of(work.images, work.device), n_features(model))
    kernels, others = optimizers(model, preset, work.device, beside=likeness)
    sharp = torch.ones((), device=work.device)

    def compute(rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        features, logits = describe_views(model, preset, images[rows], random, work.device)
        terms = likeness_terms(likeness, preset, rows, features, logits, sharp, random)
        return descend_sum([kernels, others], terms)

    parts = {"model": model, "likeness": likeness}
    encoder_stage("likeness", parts, (kernels, others), compute, preset, work, sharp)


def encoder_stage(
    name: str,
    parts: Mapping[str, Stateful],
    optimizers: tuple[Muon, torch.optim.AdamW],
    compute: Compute,
    preset: ConvolutionalPreset,
    work: Work,
    sharp: Tensor | None = None,
    passes: int | None = None,
) -> None:
    """Run the stage that trains the encoder.

    sharp: of soft bits; it is raised, see `sharpness`. passes: over the images, at most.
    """
    kernels, others = optimizers

    def at(progress: float) -> None:
        if sharp is not None:
            sharp.fill_(sharpness(progress))

    work.stage(
        name,
        parts,
        {"muon": (kernels, preset.kernel_rate), "adam": (others, preset.learning_rate)},
        compute,
        batch=min(preset.batch, len(work.images)),
        steps=preset.steps,
        part=VIEWS,
        at=at,
        share=preset.encoder_share,
        passes=passes,
    )


def view_terms(preset: ConvolutionalPreset, logits: Tensor) -> dict[str, Tensor]:
    """Weighted losses, by name, of the logits of two views, (2n, width) float."""
    terms = spread_and_alike(*logits.float().chunk(2))
    return {name: getattr(preset, name) * term for name, term in terms.items()}


def likeness_terms(
    likeness: Likeness,
    preset: ConvolutionalPreset,
    rows: Tensor,
    features: Tensor,
    logits: dict[str, Tensor],
    sharp: Tensor,
    random: torch.Generator,
) -> dict[str, Tensor]:
    """Weighted losses, by name, of two views compared with a teacher's targets.

    rows: (n,) int64; features: (2n, features) float; logits: of head, code and address, (2n,
    width) float each; sharp: sharpness of the soft bits.
    """
    bits = {name: soft_bits(logits[name], sharp) for name in ("code", "address")}
    outputs = {"head": logits["head"], **bits}
    terms = likeness.terms(rows.repeat(2), features.float(), outputs, random)
    for name in outputs:
        terms[name] = terms[name] - preset.student_rate * coding_rate(logits[name])
    for name in ("head", "code"):  # the few bits of an address would become equal
        one, two = outputs[name].chunk(2)
        terms[name] = terms[name] + preset.student_invariance * variance_lost(one, two)
    terms["address"] = preset.address * terms["address"]
    return terms


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def refine_decoder(
    model: ConvolutionalAutoencoder,
    preset: ConvolutionalPreset,
    work: Work,
    passes: int | None = None,
) -> None:
    """Finish the code, then train only the decoder, on codes of uncropped images.

    The loss is the geometric mean over images of the mean squared error of standardised
    pixels. passes: over the images, at most.
    """
    model.eval()  # so that the codes equal those of the finished model
    images = work.resident()
    optimizer = adam(model.decoder.parameters(), work.device, decay=0.0)

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
        batch=min(preset.decoder_batch, len(images)),
        steps=preset.decoder_steps,
        part=_DECODER,
        prepare=lambda: preset.finish_code(model, work),
        scale=0.0,
        passes=passes,
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


def describe_views(
    model: ConvolutionalAutoencoder,
    preset: ConvolutionalPreset,
    tiny: Tensor,
    random: torch.Generator,
    device: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw a view and a view passed on of each image; return features and logits of all.

    tiny: (n, 32, 32, 3) uint8. The features are (2n, features), the logits of head, code and
    address by name (2n, width) float32, those of the first views first.
    """
    heads = {"head": model.head, "code": model.code, "address": model.address}
    drawn = (preset.views, preset.other_views)
    views = torch.cat([random_views(tiny, views, random) for views in drawn])
    with autocast(device):
        features = model.features(model.standardize(views.permute(0, 2, 3, 1)))
        return features, {name: head(features).float() for name, head in heads.items()}


def n_features(model: ConvolutionalAutoencoder) -> int:
    linear = model.head[0]
    assert isinstance(linear, nn.Linear)
    return linear.in_features
