"""Tiny images to codes, and codes to reconstructions, in batches on a device."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

import hashsearch
from hashsearch.codes import pack_bits, unpack_bits
from hashsearch.errors import ArtifactMismatch
from hashsearch.images import PREPROCESSING
from hashsearch.models.autoencoder import Autoencoder
from hashsearch.models.rows import EIGHT
from hashsearch.models.storage import read_model

# A code is the one that a batch of EIGHT images gives; black images complete the last batch.
# Computations on other numbers of images may round differently, and a bit near its threshold
# would then depend on what an image is encoded with. Batches of other sizes are used only where
# a trial shows that they round alike: smaller ones for a few images, and ones of MANY, with
# which an indexing job encodes 1.3 times as many images per second (docs/experiments.md).
MANY = 32


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
        self._tried: dict[tuple[int, int], bool] = {}  # by threads and rows

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
            done = 0
            while done < len(tiny):
                rows = self._rows(len(tiny) - done)
                batch = tiny[done : done + rows]
                padded = np.zeros((rows, *tiny.shape[1:]), np.uint8)
                padded[: len(batch)] = batch
                logits = logits_of(torch.from_numpy(padded).to(self.device))
                bits[done : done + rows] = (logits[: len(batch)] >= 0).cpu().numpy()
                done += rows
        return bits

    def _rows(self, images: int) -> int:
        """The rows of the next batch, of which black images may be a part."""
        if images >= EIGHT:
            return MANY if images >= MANY and self._rounds_like_eight(MANY) else EIGHT
        return next((n for n in range(images, EIGHT) if self._rounds_like_eight(n)), EIGHT)

    def _rounds_like_eight(self, rows: int) -> bool:
        """Whether batches of so many rows give the values of batches of EIGHT.

        This depends on the processor, the number of threads and the model, and is tried when a
        size is first needed. In bfloat16 a trial proves too little, as rounding hides most
        differences; on a GPU, padding costs next to nothing. Neither is tried.
        """
        if self.device != "cpu" or self.precision != "float32":
            return False
        key = torch.get_num_threads(), rows
        if key not in self._tried:
            self._tried[key] = _round_alike(self.model, rows)
        return self._tried[key]


def _round_alike(model: Autoencoder, rows: int) -> bool:
    """Whether each layer's values are the same in a batch of so many rows as in ones of EIGHT."""
    squares = np.random.default_rng(0).integers(0, 256, (MANY, 8, 8, 3), np.uint8)
    tiny = torch.from_numpy(squares.repeat(4, axis=1).repeat(4, axis=2))

    def computed(batch: Tensor) -> list[Tensor]:
        with _Recorder(len(batch)) as recorder:
            if model.address_bits:
                model.code_and_address_logits(batch)
            else:
                model.code_logits(batch)
        return recorder.computed

    ours = computed(tiny[:rows].clone())
    eights = [computed(tiny[n : n + EIGHT].clone()) for n in range(0, rows, EIGHT)]
    theirs = (torch.cat(parts)[:rows] for parts in zip(*eights, strict=True))
    # Ours in the same order; theirs has others between, from layers that take 8 rows at a time.
    return all(any(torch.equal(one, other) for other in theirs) for one in ours)


class _Recorder(TorchFunctionMode):
    """Copies every floating-point tensor of so many rows that this thread computes."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.computed: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if (
            isinstance(result, Tensor)
            and result.is_floating_point()
            and result.shape[:1] == (self.rows,)
        ):
            self.computed.append(result.clone())
        return result


def _use_one_thread_after_a_fork() -> None:
    """Compute without OpenMP's threads in a forked process, where they do not exist.

    PyTorch would wait for them for ever. Its own loaders of data do the same after a fork.
    Source: torch/utils/data/_utils/worker.py.
    """
    if os.getpid() != hashsearch._process:
        torch.set_num_threads(1)
        hashsearch._process = os.getpid()
