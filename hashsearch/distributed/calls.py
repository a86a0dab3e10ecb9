"""The threads of this process that call Ray, which is left when none does.

A thread that calls Ray after its shutdown makes Ray end the whole process.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Any

from hashsearch.errors import ClusterError

_STEP_S = 0.5  # in which a thread that waits for an answer sees that the cluster is left
_END_S = 20.0  # for threads to end their calls


class _Calls:
    """number: of threads that call Ray. blocks: in which they may."""

    def __init__(self) -> None:
        self.changed, self.number, self.blocks = Condition(), 0, 0


_calls = _Calls()


@contextmanager
def calls_allowed() -> Iterator[None]:
    """Within the block, any thread may call Ray; the outermost ends when none does any more."""
    with _calls.changed:
        _calls.blocks += 1
    try:
        yield
    finally:
        with _calls.changed:
            _calls.blocks -= 1
            _calls.changed.wait_for(lambda: are_allowed() or _calls.number == 0, _END_S)


def are_allowed() -> bool:
    """Whether Ray may be called: the cluster is not being left."""
    return _calls.blocks > 0


@contextmanager
def calling() -> Iterator[None]:
    """Within the block, this thread calls Ray. Raises ClusterError if the cluster is being left."""
    with _calls.changed:
        require_allowed()
        _calls.number += 1
    try:
        yield
    finally:
        with _calls.changed:
            _calls.number -= 1
            _calls.changed.notify_all()


def require_allowed() -> None:
    """Raise ClusterError if the cluster is being left; for threads that wait long for Ray."""
    if not are_allowed():
        raise ClusterError("this process is leaving the cluster")


def answer_of(call: Any, limit_s: float = math.inf) -> Any:
    """What a call of an actor returns. Raises RayError, GetTimeoutError, and as `calling`."""
    import ray

    until, is_done = time.monotonic() + limit_s, False
    while not is_done and (left_s := until - time.monotonic()) > 0:
        require_allowed()
        is_done = bool(ray.wait([call], timeout=min(left_s, _STEP_S))[0])
    return ray.get(call, timeout=None if is_done else 0)
