"""Work that several threads ask for at the same time, done together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")


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
