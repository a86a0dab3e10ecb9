"""A training job from images to a saved model."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashsearch.codes import unpack_bits
from hashsearch.encoder import Encoder
from hashsearch.errors import TrainingError
from hashsearch.images import TINY_BYTES
from hashsearch.metrics import psnr_db
from hashsearch.models.card import Card
from hashsearch.models.convolutional import ENCODER, ConvolutionalAutoencoder
from hashsearch.models.dense import DenseAutoencoder
from hashsearch.models.folder import (
    Autoencoder,
    load_model,
    require_free,
    round_as_stored,
    save_model,
)
from hashsearch.models.transform import TransformAutoencoder
from training.contrast import learn_views, refine_decoder
from training.data import fit_standardization, sha256_of_images, split_off, without
from training.device import describe, has_bfloat16
from training.linear import fit_linear
from training.presets import (
    ConvolutionalPreset,
    DensePreset,
    LinearPreset,
    Preset,
    TransformPreset,
)
from training.reconstruct import fine_tune, pretrain
from training.report import write_report
from training.retrieval import Labelled, retrieval_by_bits, retrieval_by_pixels
from training.run import Run
from training.transform import fit_networks

HELD_OUT = 1000  # images kept from training, to measure reconstruction on
COLUMNS = ("loss", "invariance", "rate", "contrast", "address")
# Shares of a budget of minutes; the rest is for the stage that takes most.
_PRETRAINING_SHARE, _DECODER_SHARE = 0.4, 0.15


def train(
    name: str,
    preset: Preset,
    images: NDArray[np.uint8],
    out: Path,
    *,
    data: str,
    seed: int,
    device: str,
    minutes: float | None = None,
    resume: bool = False,
    start: Path | None = None,
    labelled: Labelled | None = None,
) -> Card:
    """Train, measure, and save a model folder, a report in it.

    name: of the preset; images: (n, 32, 32, 3) uint8; data: what they are, for
    the card. minutes: about how long to train, in place of the preset's numbers
    of steps. resume: go on with what `OUT.training` holds, if it holds something.
    start: a model folder whose weights, and standardisation of pixels, the training
    begins with, in place of random ones. labelled: to measure retrieval on; an image
    that is among its queries is not trained on.
    Raises InvalidModel if `out` exists or `start` cannot be read, and TrainingError
    if there are fewer images than a batch, the loss stops being a number or
    diverges, `start` is of another architecture, or an unfinished training lies
    there that is not to be, or cannot be, gone on with.
    """
    require_free(out)
    torch.manual_seed(seed)
    seen = images if labelled is None else without(images, labelled.queries)
    train_images, held_out = split_off(seen, HELD_OUT, np.random.default_rng(seed))
    _require_enough(train_images, preset)
    model, origin = _begin(preset, train_images, start)
    recipe: dict[str, Any] = {
        "preset": name,
        "settings": asdict(preset),
        "data": data,
        "images": len(train_images),
        "images_sha256": sha256_of_images(images),
        "left_out_as_queries": len(images) - len(seen),
        "seed": seed,
        "minutes_asked": minutes,
        "start": origin,
        "device": torch.device(device).type,
        "bfloat16": has_bfloat16(device),
    }
    run = Run(out, recipe, COLUMNS, resume=resume)
    begun = start is not None
    take_stages(run, model.to(device), preset, train_images, seed, device, minutes, begun)
    training = recipe | {
        "steps": run.steps,
        "minutes": round(run.seconds / 60, 2),
        "hardware": describe(device),
        "torch": torch.__version__,
    }
    _require_numbers(model, "is no number after the last step")
    round_as_stored(model)
    _require_numbers(model, "is too large for the 16 bits that it is stored in")
    sample = held_out if len(held_out) else train_images[:HELD_OUT]
    metrics = measure(model.cpu().eval(), sample, labelled)
    report = run.folder / "report"
    shutil.rmtree(report, ignore_errors=True)  # of a life that ended while writing it
    write_report(report, model, run.log, sample, metrics)
    card = save_model(out, model, training=training, metrics=metrics)
    report.rename(out / report.name)
    run.delete()
    return card


def _begin(
    preset: Preset, images: NDArray[np.uint8], start: Path | None
) -> tuple[Autoencoder, dict[str, Any] | None]:
    """A model to train, and, where it starts from another, what that one was."""
    model = build(preset)
    begun = load_start(preset, start)
    if begun is None:
        fit_standardization(model, images)
        return model, None
    trained, card = begun
    weights = trained.state_dict()
    if isinstance(model, ConvolutionalAutoencoder):  # the other parts are made anew
        kept = (*ENCODER, "pixel_mean", "pixel_std")
        weights = {name: part for name, part in weights.items() if name.split(".")[0] in kept}
    model.load_state_dict(model.state_dict() | weights)
    return model, {"fingerprint": card.fingerprint, "training": card.training}


def load_start(preset: Preset, start: Path | None) -> tuple[Autoencoder, Card] | None:
    """The model to start from, and its card; None for random weights.

    Raises InvalidModel or ArtifactMismatch if it cannot be read, and TrainingError
    if it is not of the preset's architecture, but for a convolutional model's depths:
    how many bits tell of the picture is decided after the encoder's training. Or if
    there is none and the preset trains no encoder.
    """
    if start is None:
        if isinstance(preset, ConvolutionalPreset) and not preset.steps:
            raise TrainingError(
                "this preset makes a trained model's code anew, and none was given; --from names it"
            )
        return None
    trained, card = load_model(start)
    with torch.device("meta"):
        wanted = build(preset)
    ours, theirs = wanted.architecture(), trained.architecture()
    if isinstance(wanted, ConvolutionalAutoencoder):
        theirs["depths"] = ours["depths"]
    if isinstance(preset, LinearPreset) or (trained.kind, theirs) != (wanted.kind, ours):
        raise TrainingError(
            f"{start} is a {trained.kind} model of {trained.architecture()}, from which this "
            f"preset cannot start; it trains a {wanted.kind} one of {ours}"
        )
    return trained, card


def build(preset: Preset) -> Autoencoder:
    """An untrained model of a preset's architecture."""
    match preset:
        case ConvolutionalPreset():
            return ConvolutionalAutoencoder(
                preset.widths, preset.blocks, preset.depths
            ).channels_last()
        case LinearPreset():
            return DenseAutoencoder(
                (TINY_BYTES, preset.bits), "relu"
            )  # no hidden layer, so of no unit
        case TransformPreset():
            return TransformAutoencoder(preset.depths, preset.width)
        case DensePreset():
            return DenseAutoencoder(preset.widths, preset.hidden)


def take_stages(
    run: Run,
    model: Autoencoder,
    preset: Preset,
    images: NDArray[np.uint8],
    seed: int,
    device: str,
    minutes: float | None,
    begun: bool,
) -> None:
    """All that a preset does to its model's weights, but for its beginning if they are begun."""

    def share(part: float) -> float | None:
        return None if minutes is None else minutes * part

    common: dict[str, Any] = {"seed": seed, "device": device}
    if isinstance(model, ConvolutionalAutoencoder):
        assert isinstance(preset, ConvolutionalPreset)
        part = _DECODER_SHARE if preset.steps else 1.0
        if preset.steps:
            learn_views(run, model, preset, images, minutes=share(1 - part), **common)
        refine_decoder(run, model, preset, images, minutes=share(part), **common)
    elif isinstance(model, TransformAutoencoder):
        assert isinstance(preset, TransformPreset)
        fit_networks(run, model, preset, images, fit=not begun, minutes=minutes, **common)
    elif isinstance(preset, LinearPreset):
        fit_linear(model, images)
    else:
        assert isinstance(preset, DensePreset)
        first = 0.0
        if preset.pretraining and not begun:
            first = _PRETRAINING_SHARE
            budget = share(first)
            pretrain(run, model, preset.pretraining, images, minutes=budget, **common)
        fine_tune(run, model, preset, images, minutes=share(1 - first), **common)


def _require_numbers(model: Autoencoder, otherwise: str) -> None:
    """Since the loss tells of every step but the last."""
    for name, weights in model.state_dict().items():
        if not weights.isfinite().all():
            raise TrainingError(f"{name} {otherwise}; no model was saved")


def _require_enough(images: NDArray[np.uint8], preset: Preset) -> None:
    batch = 1 if isinstance(preset, LinearPreset) else preset.batch
    if isinstance(preset, ConvolutionalPreset):
        batch = max(batch if preset.steps else 1, preset.decoder_batch)
    if len(images) < batch:
        raise TrainingError(
            f"{len(images)} images are fewer than one batch of {batch}; more are needed"
        )


def measure(
    model: Autoencoder, sample: NDArray[np.uint8], labelled: Labelled | None
) -> dict[str, float]:
    """PSNR of reconstructions from bits, how evenly the bits are used, and what they find.

    Retrieval is measured by codes, by addresses and by pixels. No training has seen
    the labelled queries; one that went on from another model may have seen the sample.
    """
    encoder = Encoder(model)
    codes = encoder.encode(sample)
    ones = unpack_bits(codes, model.bits).mean(axis=0)

    def psnr(images: NDArray[np.uint8], codes: NDArray[np.uint8]) -> float:
        return round(psnr_db(images, encoder.reconstruct(codes)), 2)

    metrics = {
        "psnr_db": psnr(sample, codes),
        "mean_bit_imbalance": round(float(np.abs(ones - 0.5).mean()), 4),
    }
    if labelled is None:
        return metrics
    queries = labelled.queries
    metrics[f"{labelled.name}_psnr_db"] = psnr(queries, encoder.encode(queries))

    def found(
        name: str, encode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], n_bits: int
    ) -> None:
        gallery, queries = (
            unpack_bits(encode(images), n_bits) for images in (labelled.gallery, labelled.queries)
        )
        measured = retrieval_by_bits(labelled, gallery, queries)
        metrics.update({f"{labelled.name}_{name}_{key}": value for key, value in measured.items()})

    found("codes", encoder.encode, model.bits)
    if model.address_bits:
        found("addresses", encoder.addresses, model.address_bits)
    measured = retrieval_by_pixels(labelled)
    return metrics | {f"{labelled.name}_pixels_{key}": value for key, value in measured.items()}
