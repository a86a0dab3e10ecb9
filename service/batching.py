"""Encoding the images of concurrent requests in common batches."""

from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder

_MOST = 32  # images of a batch, so that no request waits long for others'

Columns = dict[str, NDArray[np.uint8]]


@dataclass(slots=True, eq=False)
class _Waiting:
    """Images that wait to be encoded.

    turn: set when they are encoded or failed, and when their thread is to encode the next batch.
    """

    encoder: "Encoder"
    tiny: NDArray[np.uint8]
    turn: Event = field(default_factory=Event)
    columns: Columns | None = None
    error: Exception | None = None


class Batching:
    """Gathers what waits while a batch is encoded into the next batch.

    A lone request is encoded at once by its own thread; nothing waits for others to come.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: list[_Waiting] = []
        self._is_encoding = False

    def columns(self, encoder: "Encoder", tiny: NDArray[np.uint8]) -> Columns:
        """What `encoder.columns` returns of (n, 32, 32, 3) uint8 tiny images. Raises the same."""
        own = _Waiting(encoder, tiny)
        with self._lock:
            self._waiting.append(own)
            if not self._is_encoding:
                self._is_encoding = True
                own.turn.set()
        own.turn.wait()
        if own.columns is None and own.error is None:
            self._encode(self._next_batch())
            self._pass_on()
        if own.error is not None:
            raise own.error
        assert own.columns is not None
        return own.columns

    def _next_batch(self) -> list[_Waiting]:
        """Take the first that waits, and those after it of the same model, up to a whole batch."""
        with self._lock:
            first, *others = self._waiting
            batch, size = [first], len(first.tiny)
            for one in others:
                if one.encoder is first.encoder and size + len(one.tiny) <= _MOST:
                    batch.append(one)
                    size += len(one.tiny)
            self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    def _encode(self, batch: list[_Waiting]) -> None:
        try:
            columns = batch[0].encoder.columns(np.concatenate([one.tiny for one in batch]))
            start = 0
            for one in batch:
                end = start + len(one.tiny)
                one.columns = {name: values[start:end] for name, values in columns.items()}
                start = end
        except Exception as error:  # each request fails by itself
            for one in batch:
                one.error = error
        for one in batch:
            one.turn.set()

    def _pass_on(self) -> None:
        """Let the first that waits encode the next batch."""
        with self._lock:
            self._is_encoding = bool(self._waiting)
            if self._waiting:
                self._waiting[0].turn.set()
