"""Train a dense autoencoder to reconstruct its input through a binary code."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.encoder import Encoder
from hashsearch.errors import TrainingError
from hashsearch.metrics import psnr_db
from hashsearch.models.card import Card
from hashsearch.models.dense import DenseAutoencoder
from hashsearch.models.folder import require_free, save_model
from hashsearch.progress import progress_report
from training.data import sha256_of_images, split_off
from training.device import describe, has_bfloat16
from training.presets import DensePreset

HELD_OUT = 1000  # images kept from training, to measure reconstruction on
_WARM_UP = 0.03  # share of the steps over which the learning rate rises


def train_reconstruction(
    name: str,
    preset: DensePreset,
    images: NDArray[np.uint8],
    out: Path,
    *,
    data: str,
    seed: int,
    device: str,
) -> Card:
    """Train, measure on held-out images, and save a model folder.

    name: of the preset; images: (n, 32, 32, 3) uint8; data: what they are, for
    the card. Raises InvalidModel if `out` exists, and TrainingError if there
    are fewer images than a batch or the loss stops being a number.
    """
    require_free(out)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    train, held_out = split_off(images, HELD_OUT, random)
    if len(train) < preset.batch:
        raise TrainingError(
            f"{len(train)} images are fewer than one batch of {preset.batch}; more are needed"
        )
    model = DenseAutoencoder(preset.widths, preset.hidden)
    _fit_standardization(model, train)
    model.to(device)

    started = time.monotonic()
    _optimize(model, preset, train, random, device)
    minutes = (time.monotonic() - started) / 60

    training: dict[str, Any] = {
        "preset": name,
        "settings": asdict(preset),
        "objective": "reconstruction",
        "data": data,
        "images": len(train),
        "images_sha256": sha256_of_images(images),
        "seed": seed,
        "minutes": round(minutes, 2),
        "hardware": describe(device),
        "bfloat16": has_bfloat16(device),
        "torch": torch.__version__,
    }
    return save_model(out, model.cpu(), training=training, metrics=_measure(model, train, held_out))


def _fit_standardization(model: DenseAutoencoder, images: NDArray[np.uint8]) -> None:
    flat = images.reshape(len(images), -1)
    mean = flat.mean(axis=0, dtype=np.float64)
    squares = sum(
        float(np.square(flat[start : start + 1000] - mean).sum())
        for start in range(0, len(flat), 1000)
    )
    model.pixel_mean.copy_(torch.from_numpy(mean))
    model.pixel_std.fill_(max(math.sqrt(squares / flat.size), 1.0))  # images all alike divide too


def _optimize(
    model: DenseAutoencoder,
    preset: DensePreset,
    images: NDArray[np.uint8],
    random: np.random.Generator,
    device: str,
) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=preset.learning_rate,
        weight_decay=preset.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / preset.steps))
    bfloat16 = has_bfloat16(device)
    order = np.empty(0, np.int64)
    with progress_report("training", preset.steps * preset.batch) as report:
        for step in range(preset.steps):
            if len(order) < preset.batch:
                order = random.permutation(len(images))
            chosen, order = order[: preset.batch], order[preset.batch :]
            batch = _flipped(images[chosen], random) if preset.flip else images[chosen]
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
                loss = model(torch.from_numpy(batch).to(device)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            report.advance(preset.batch, f"loss {_finite(loss, step):.4f}")


def _rate(progress: float) -> float:
    """Share of the full learning rate after this share of the steps."""
    return min(1.0, progress / _WARM_UP + 1e-3) * 0.5 * (1 + math.cos(math.pi * progress))


def _flipped(batch: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    mirrored = random.random(len(batch)) < 0.5
    return np.where(mirrored[:, None, None, None], batch[:, :, ::-1], batch)


def _finite(loss: Tensor, step: int) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(f"the loss became {value} at step {step}; nothing was saved")
    return value


def _measure(
    model: DenseAutoencoder, train: NDArray[np.uint8], held_out: NDArray[np.uint8]
) -> dict[str, float]:
    """PSNR of reconstructions from bits, and how evenly the bits are used."""
    encoder = Encoder(model)
    sample = held_out if len(held_out) else train[:HELD_OUT]
    codes = encoder.encode(sample)
    ones = np.unpackbits(codes, axis=1).mean(axis=0)
    return {
        "psnr_db": round(psnr_db(sample, encoder.reconstruct(codes)), 2),
        "mean_bit_imbalance": round(float(np.abs(ones - 0.5).mean()), 4),
    }
