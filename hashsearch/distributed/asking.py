"""One question to the copies of a base's parts: others are asked where one fails."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from hashsearch.distributed.calls import require_allowed
from hashsearch.distributed.loading import Replica, said
from hashsearch.errors import ClusterError

_log = logging.getLogger(__name__)

_LOOK_S = 1.0  # between two looks at the copies that have not answered
_LONGEST_S = 300.0  # that a search of a part takes, however busy its node is

# A copy of a slice that was not tried, and its actor; None if there is none.
Choose = Callable[[int, Sequence[Replica]], tuple[Replica, Any] | None]
# Notes that a copy failed: the actor that it had, the error, and whether that actor is stuck.
Failed = Callable[[Replica, Any, Exception, bool], None]


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
        # By call: the copy, its actor, and when it is stuck, by the monotonic clock.
        self._waiting: dict[Any, tuple[Replica, Any, float]] = {}
        self._found: dict[int, Any] = {}
        self._raised: dict[int, RayTaskError] = {}  # by a copy's process, which goes on

    def answers(self) -> dict[int, Any]:
        """The answers, by the number of each slice that has a copy.

        Raises RayTaskError if two copies of a slice, or its only one, raise an error.
        """
        for number in self._arguments:
            self._send(number)
        while self._waiting:
            require_allowed()
            done, _ = ray.wait(list(self._waiting), timeout=_LOOK_S)
            for call in done or self._given_up():
                self._take(call, is_done=bool(done))
        return self._found

    def _send(self, number: int) -> None:
        """Ask the next copy of a slice, if there is one."""
        tried = self._tried[number]
        if (chosen := self._choose(number, tried)) is None:
            if number in self._raised:
                raise self._raised[number]
            return
        replica, actor = chosen
        if tried:
            self._tally.retry()
        tried.append(replica)
        call = getattr(actor, self._method).remote(*self._arguments[number])
        self._waiting[call] = replica, actor, time.monotonic() + _LONGEST_S

    def _given_up(self) -> list[Any]:
        """Calls of copies that are not asked any more, or that are stuck."""
        now = time.monotonic()
        return [
            call
            for call, (replica, actor, until) in self._waiting.items()
            if not replica.is_up or replica.actor is not actor or now > until
        ]

    def _take(self, call: Any, *, is_done: bool) -> None:
        """Take the answer of a copy, or ask another one."""
        replica, actor, until = self._waiting.pop(call)
        try:
            self._found[replica.slice] = ray.get(call, timeout=None if is_done else 0)
        except RayTaskError as error:
            if replica.slice in self._raised:
                raise  # it is the question's
            self._raised[replica.slice] = error  # or the node's, which may lack memory
            self._send(replica.slice)
        except (RayError, TimeoutError) as error:
            self._failed(replica, actor, error, not is_done and time.monotonic() > until)
            if not is_done:
                with suppress(RayError, ValueError):
                    ray.cancel(call)  # if it has not begun
            self._send(replica.slice)


@contextmanager
def cluster_errors() -> Iterator[None]:
    """Within the block, Ray's own errors become a ClusterError: that its memory is full, and so on.

    What its tasks raise stays as it is.
    """
    try:
        yield
    except RayTaskError:
        raise
    except RayError as error:
        _log.warning("the cluster fails: %s", said(error))
        raise ClusterError(
            f"the cluster fails ({type(error).__name__}); try again in some seconds"
        ) from error
