"""Work that several threads ask for at the same time, done together; images are encoded so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder

A = TypeVar("A")
R = TypeVar("R")

_MOST = 32  # images of a batch, so that no request waits long for others'

Columns = dict[str, NDArray[np.uint8]]
_Asked = tuple["Encoder", NDArray[np.uint8]]


@dataclass(slots=True, eq=False)
class _Waiting(Generic[A, R]):
    """One call that waits.

    turn: set when the result is there, and when this thread is to do the next work.
    """

    asked: A
    turn: Event = field(default_factory=Event)
    result: R | None = None
    error: BaseException | None = None
    is_done: bool = False


class Gathering(Generic[A, R]):
    """Does together what is asked while earlier work is done.

    A lone call is done at once, in its own thread; nothing waits for others to come. Of the calls
    that came meanwhile, the first does the next work, for itself and for the others.
    """

    def __init__(
        self,
        work: Callable[[Sequence[A]], Sequence[R]],
        fits: Callable[[Sequence[A], A], bool],
    ):
        """work: gives a result for each of what was asked. fits: whether what was asked can be
        done together with what has been gathered, at least one.
        """
        self._work, self._fits = work, fits
        self._lock = Lock()
        self._waiting: list[_Waiting[A, R]] = []
        self._is_working = False

    def __call__(self, asked: A) -> R:
        """The result for what is asked. Raises what the work raises."""
        own: _Waiting[A, R] = _Waiting(asked)
        with self._lock:
            self._waiting.append(own)
            if not self._is_working:
                self._is_working = True
                own.turn.set()
        own.turn.wait()
        if not own.is_done:
            try:
                self._do(self._gathered())
            finally:
                self._pass_on()
        if own.error is not None:
            raise own.error
        return own.result  # type: ignore[return-value]  # it is there without an error

    def _gathered(self) -> list[_Waiting[A, R]]:
        """Take the first that waits, and those after it that fit."""
        with self._lock:
            taken = self._waiting[:1]
            left: list[_Waiting[A, R]] = []
            for one in self._waiting[1:]:
                fits = self._fits([other.asked for other in taken], one.asked)
                (taken if fits else left).append(one)
            self._waiting = left
        return taken

    def _do(self, gathered: Sequence[_Waiting[A, R]]) -> None:
        try:
            results = self._work([one.asked for one in gathered])
            for one, result in zip(gathered, results, strict=True):
                one.result = result
        except BaseException as error:  # each call fails by itself
            for one in gathered:
                one.error = error
        for one in gathered:
            one.is_done = True
            one.turn.set()

    def _pass_on(self) -> None:
        """Let the first that waits do the next work."""
        with self._lock:
            self._is_working = bool(self._waiting)
            if self._waiting:
                self._waiting[0].turn.set()


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
