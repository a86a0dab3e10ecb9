"""The interface of a model family: what storage, the encoder and training call."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn


class StoredModel(nn.Module, ABC):
    """A model that a model folder can hold.

    kind: its name in cards. stored: the floating-point type that kernels and matrices are
    stored in. oldest_format: the oldest card format whose weights fit the class. bits,
    address_bits: of a code and of an address, 0 where the model has none. picture_bits: how many
    of a code's first bits encode the picture itself, while the others encode its meaning; None
    where bits are not divided so. pixel_mean, pixel_std: for standardising pixels, in grey levels.
    """

    kind: ClassVar[str]
    stored: ClassVar[torch.dtype] = torch.float32
    oldest_format: ClassVar[int] = 2
    address_bits: int = 0
    picture_bits: int | None = None
    pixel_mean: Tensor
    pixel_std: Tensor

    @property
    @abstractmethod
    def bits(self) -> int: ...

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """The arguments of `__init__`, as the card stores them."""


class Autoencoder(StoredModel):
    """A model that encodes tiny images into codes and decodes codes into images."""

    @abstractmethod
    def standardize(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to float of mean 0 and variance 1, in the family's own layout."""

    @abstractmethod
    def code_logits(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, bits) float; a bit is 1 where the logit is ≥ 0."""

    def address_logits(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, address_bits) float; called only if address_bits > 0."""
        raise NotImplementedError(f"a {self.kind} model has no addresses")

    def code_and_address_logits(self, tiny: Tensor) -> tuple[Tensor, Tensor]:
        """The results of `code_logits` and `address_logits`, which may share their work."""
        return self.code_logits(tiny), self.address_logits(tiny)

    @abstractmethod
    def reconstruct(self, bits: Tensor) -> Tensor:
        """(n, bits) float zeros and ones to (n, 32, 32, 3) float, in grey levels, unclipped."""

    def for_inference(self) -> Self:
        """A model that computes the same in less time; it may share this one's weights."""
        return self
