"""Tiny images to codes, and codes to reconstructions, in batches on a device."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hashsearch.codes import CODE_BITS, pack_bits, unpack_bits
from hashsearch.models.dense import DenseAutoencoder
from hashsearch.models.folder import load_model

# Every matrix product has this many rows, the last ones filled up with black:
# products of other shapes may round otherwise, and a bit near its threshold
# would then depend on what it was encoded beside.
BATCH = 32


class Encoder:
    """A model at work. `encode` is deterministic on one machine, whatever the batch."""

    def __init__(self, model: DenseAutoencoder, device: str = "cpu"):
        self.model = model.to(device).eval()
        self.device = device

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Encoder":
        """Raises InvalidModel or ArtifactMismatch, as `load_model` does."""
        model, _ = load_model(folder)
        return cls(model, device)

    def encode(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, 32, 32, 3) uint8 tiny images to (n, 32) uint8 packed codes."""
        bits = np.empty((len(tiny), CODE_BITS), np.uint8)
        with torch.inference_mode():
            for start in range(0, len(tiny), BATCH):
                batch = tiny[start : start + BATCH]
                padded = np.zeros((BATCH, *tiny.shape[1:]), np.uint8)
                padded[: len(batch)] = batch
                logits = self.model.code_logits(torch.from_numpy(padded).to(self.device))
                bits[start : start + BATCH] = (logits[: len(batch)] >= 0).cpu().numpy()
        return pack_bits(bits)

    def reconstruct(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, 32) uint8 packed codes to (n, 32, 32, 3) uint8 images.

        Raises CodeShapeError if the codes are of another width.
        """
        bits = torch.from_numpy(unpack_bits(codes)).to(self.device, torch.float32)
        with torch.inference_mode():
            pixels = [self.model.reconstruct(batch) for batch in bits.split(BATCH * 8)]
        levels = torch.cat(pixels) if pixels else torch.empty(0, 32, 32, 3)
        rounded: NDArray[np.uint8] = levels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return rounded
