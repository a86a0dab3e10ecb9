"""One question to the copies of a base's parts: others are asked where one fails."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from hashsearch.distributed.calls import require_allowed
from hashsearch.distributed.loading import Replica

_LOOK_S = 1.0  # between two looks at the copies that have not answered

# A copy of a slice that was not tried, and its actor; None if there is none.
Choose = Callable[[int, Sequence[Replica]], tuple[Replica, Any] | None]
# Is told that a copy failed, with the actor that it had.
Failed = Callable[[Replica, Any, Exception], None]


@dataclass(slots=True, eq=False)
class Tally:
    """What is counted over all bases of a service."""

    retries: int = 0
    lock: Lock = field(default_factory=Lock)

    def retry(self) -> None:
        with self.lock:
            self.retries += 1


class Question:
    """A call of one copy of each slice, and of the slice's next copy where one fails."""

    def __init__(
        self,
        method: str,
        arguments: Mapping[int, tuple[Any, ...]],
        choose: Choose,
        failed: Failed,
        tally: Tally,
    ):
        """method: of Holder. arguments: by the slice's number."""
        self._method, self._arguments = method, arguments
        self._choose, self._failed, self._tally = choose, failed, tally
        self._tried: dict[int, list[Replica]] = {number: [] for number in arguments}
        self._waiting: dict[Any, tuple[Replica, Any]] = {}  # the copy, and its actor, by call
        self._found: dict[int, Any] = {}

    def answers(self) -> dict[int, Any]:
        """The answers, by the number of each slice that has a copy."""
        for number in self._arguments:
            self._send(number)
        while self._waiting:
            require_allowed()
            done, _ = ray.wait(list(self._waiting), timeout=_LOOK_S)
            for call in done or self._given_up():
                self._take(call, is_done=bool(done))
        return self._found

    def _send(self, number: int) -> None:
        tried = self._tried[number]
        if (chosen := self._choose(number, tried)) is None:
            return
        replica, actor = chosen
        if tried:
            self._tally.retry()
        tried.append(replica)
        call = getattr(actor, self._method).remote(*self._arguments[number])
        self._waiting[call] = chosen

    def _given_up(self) -> list[Any]:
        """Calls of copies that are not asked any more."""
        return [
            call
            for call, (replica, actor) in self._waiting.items()
            if not replica.is_up or replica.actor is not actor
        ]

    def _take(self, call: Any, *, is_done: bool) -> None:
        """Take the answer of a copy, or ask another one."""
        replica, actor = self._waiting.pop(call)
        try:
            self._found[replica.slice] = ray.get(call, timeout=None if is_done else 0)
        except RayTaskError:
            raise  # it is the question's, and other copies would fail too
        except (RayError, TimeoutError) as error:
            self._failed(replica, actor, error)
            if not is_done:
                with suppress(RayError, ValueError):
                    ray.cancel(call)  # if it has not begun
            self._send(replica.slice)
