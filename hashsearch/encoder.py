"""Tiny images to codes, and codes to reconstructions, in batches on a device."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.codes import pack_bits, unpack_bits
from hashsearch.errors import ArtifactMismatch
from hashsearch.models.autoencoder import Autoencoder
from hashsearch.models.storage import load_model

# Every matrix product has this many rows, the last ones filled up with black:
# products of other shapes may round otherwise, and a bit near its threshold
# would then depend on what it was encoded beside.
# Few enough that one image, alone in a batch, is quick.
BATCH = 8


class Encoder:
    """A model at work. `encode` is deterministic on one machine, whatever the batch.

    precision: of the products, "float32" or "bfloat16", which is faster where the
    processor has it, and gives other codes: of the bundled model, by a quarter of a bit an
    image (docs/experiments.md).
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
        self.fingerprint: str | None = None  # of a model that was loaded

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> "Encoder":
        """Raises InvalidModel or ArtifactMismatch, as `load_model` does."""
        model, card = load_model(folder)
        encoder = cls(model, device, precision)
        encoder.fingerprint = card.fingerprint
        return encoder

    def encode(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, 32, 32, 3) uint8 tiny images to (n, 32) uint8 packed codes.

        A model of fewer bits gives as many bytes as these fill.
        """
        return pack_bits(self._bits(tiny, self.model.code_logits, self.model.bits))

    def addresses(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, 32, 32, 3) uint8 tiny images to (n, 4) uint8 packed addresses of 28 bits.

        Raises ArtifactMismatch if the model has no address head.
        """
        if not self.model.address_bits:
            raise ArtifactMismatch(f"a {self.model.kind} model gives no addresses")
        return pack_bits(self._bits(tiny, self.model.address_logits, self.model.address_bits))

    def encode_both(
        self, tiny: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Compute the results of `encode` and `addresses` in one forward pass.

        Returns the same bytes as these do; the addresses are None if the model has no
        address head.
        """
        if not self.model.address_bits:
            return self.encode(tiny), None

        def logits(batch: Tensor) -> Tensor:
            return torch.cat(self.model.code_and_address_logits(batch), dim=1)

        bits = self._bits(tiny, logits, self.model.bits + self.model.address_bits)
        codes, addresses = np.split(bits, [self.model.bits], axis=1)
        return pack_bits(codes), pack_bits(addresses)

    def reconstruct(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, 32) uint8 packed codes to (n, 32, 32, 3) uint8 images.

        Raises CodeShapeError if the codes are of another width.
        """
        bits = torch.from_numpy(unpack_bits(codes, self.model.bits)).to(self.device, torch.float32)
        with torch.inference_mode():
            pixels = [self.model.reconstruct(batch) for batch in bits.split(256)]
        levels = torch.cat(pixels) if pixels else torch.empty(0, 32, 32, 3)
        rounded: NDArray[np.uint8] = levels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return rounded

    def _bits(
        self, tiny: NDArray[np.uint8], logits_of: Callable[[Tensor], Tensor], n_bits: int
    ) -> NDArray[np.uint8]:
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
