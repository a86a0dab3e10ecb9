"""Encoding the images of concurrent requests in common batches."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hashsearch.gathering import Gathering

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder

_MOST = 32  # images of a batch, so that no request waits long for others'

Columns = dict[str, NDArray[np.uint8]]
_Asked = tuple["Encoder", NDArray[np.uint8]]


class Batching:
    """Gathers the images that come while a batch is encoded into the next batch."""

    def __init__(self, on_batch: Callable[[int], None] = lambda images: None) -> None:
        """on_batch: called with the number of images of each batch, before it is encoded."""
        self._on_batch = on_batch
        self._gathering = Gathering(self._encode, _fits)

    def columns(self, encoder: "Encoder", tiny: NDArray[np.uint8]) -> Columns:
        """What `encoder.columns` returns of (n, 32, 32, 3) uint8 tiny images. Raises the same."""
        return self._gathering((encoder, tiny))

    def _encode(self, gathered: Sequence[_Asked]) -> list[Columns]:
        every = np.concatenate([tiny for _, tiny in gathered])
        self._on_batch(len(every))
        columns = gathered[0][0].columns(every)
        edges = np.cumsum([len(tiny) for _, tiny in gathered])[:-1]
        parts = {name: np.split(values, edges) for name, values in columns.items()}
        return [
            {name: values[number] for name, values in parts.items()}
            for number in range(len(gathered))
        ]


def _fits(gathered: Sequence[_Asked], asked: _Asked) -> bool:
    encoder, tiny = asked
    size = sum(len(others) for _, others in gathered) + len(tiny)
    return encoder is gathered[0][0] and size <= _MOST
