"""Tiny images to codes, and codes to reconstructions, in batches on a device."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import hashsearch
from hashsearch.codes import pack_bits, unpack_bits
from hashsearch.errors import ArtifactMismatch
from hashsearch.images import PREPROCESSING
from hashsearch.models.autoencoder import Autoencoder
from hashsearch.models.storage import read_model

# Every batch has this many images; the last one is padded with black images. Products of
# another shape may round differently, and a bit near its threshold would then depend on the
# number of images encoded together. Small, so that a single image takes little time.
BATCH = 8


class Encoder:
    """Encodes and decodes images with one model.

    On one machine an image's code is always the same, whatever it is encoded with.
    precision: of matrix products, "float32" or "bfloat16". bfloat16 is faster if the
    processor has it, and makes slightly different codes: with the bundled model, a quarter
    of a bit per image differs on average (docs/experiments.md).
    """

    def __init__(
        self,
        model: Autoencoder,
        device: str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ):
        self.model = model.for_inference().to(device).eval()
        self.device = device
        self.precision = precision
        self.fingerprint: str | None = None  # set by `load`
        self.preprocessing = PREPROCESSING  # the image rules it was trained by; set by `load`

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> "Encoder":
        """Read a model folder. Raises InvalidModel or ArtifactMismatch, as `read_model` does."""
        _use_one_thread_after_a_fork()
        model, card = read_model(folder)
        encoder = cls(model, device, precision)
        encoder.fingerprint, encoder.preprocessing = card.fingerprint, card.preprocessing
        return encoder

    def encode(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, 32, 32, 3) uint8 tiny images to (n, 32) uint8 packed codes.

        If the model has other than 256 bits, the width is bits / 8, rounded up.
        """
        return pack_bits(self._bits(tiny, self.model.code_logits, self.model.bits))

    def addresses(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, 32, 32, 3) uint8 tiny images to (n, 4) uint8 packed 28-bit addresses.

        Raises ArtifactMismatch if the model has no address head.
        """
        if not self.model.address_bits:
            raise ArtifactMismatch(f"a {self.model.kind} model gives no addresses")
        return pack_bits(self._bits(tiny, self.model.address_logits, self.model.address_bits))

    def columns(self, tiny: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        """Compute what a gallery stores of tiny images, in one forward pass.

        tiny: (n, 32, 32, 3) uint8. Returns "codes", the result of `encode`, and "addresses",
        that of `addresses`, if the model has an address head.
        """
        if not self.model.address_bits:
            return {"codes": self.encode(tiny)}

        def logits(batch: Tensor) -> Tensor:
            return torch.cat(self.model.code_and_address_logits(batch), dim=1)

        bits = self._bits(tiny, logits, self.model.bits + self.model.address_bits)
        codes, addresses = np.split(bits, [self.model.bits], axis=1)
        return {"codes": pack_bits(codes), "addresses": pack_bits(addresses)}

    def reconstruct(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, 32) uint8 packed codes to (n, 32, 32, 3) uint8 images.

        Raises CodeShapeError if the codes have another width.
        """
        _use_one_thread_after_a_fork()
        bits = torch.from_numpy(unpack_bits(codes, self.model.bits)).to(self.device, torch.float32)
        with torch.inference_mode():
            pixels = [self.model.reconstruct(batch) for batch in bits.split(256) if len(batch)]
        levels = torch.cat(pixels) if pixels else torch.empty(0, 32, 32, 3)
        rounded: NDArray[np.uint8] = levels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return rounded

    def _bits(
        self, tiny: NDArray[np.uint8], logits_of: Callable[[Tensor], Tensor], n_bits: int
    ) -> NDArray[np.uint8]:
        _use_one_thread_after_a_fork()
        bits = np.empty((len(tiny), n_bits), np.uint8)
        rounded = torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )
        with torch.inference_mode(), rounded:
            for start in range(0, len(tiny), BATCH):
                batch = tiny[start : start + BATCH]
                padded = np.zeros((BATCH, *tiny.shape[1:]), np.uint8)
                padded[: len(batch)] = batch
                logits = logits_of(torch.from_numpy(padded).to(self.device))
                bits[start : start + BATCH] = (logits[: len(batch)] >= 0).cpu().numpy()
        return bits


def _use_one_thread_after_a_fork() -> None:
    """Compute without OpenMP's threads in a forked process, where they do not exist.

    PyTorch would wait for them for ever. Its own loaders of data do the same after a fork.
    Source: torch/utils/data/_utils/worker.py.
    """
    if os.getpid() != hashsearch._process:
        torch.set_num_threads(1)
        hashsearch._process = os.getpid()
