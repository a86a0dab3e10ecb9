"""Handling of Ctrl-C and SIGTERM by programs; the library takes over no signal by itself."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def status_of(interrupt: KeyboardInterrupt) -> int:
    """The exit status of a process that an interrupt ended, as shells give it: 130 or 143."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after Ctrl-C or SIGTERM; a second signal acts at once.

    A KeyboardInterrupt that the block raises after SIGTERM becomes Terminated.
    """
    requested, terminated = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set  # only the main thread can handle signals
        return
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in handled}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        requested.set()
        if number == signal.SIGTERM:
            terminated.set()
        restore()

    for number in handled:
        signal.signal(number, request)
    try:
        yield requested.is_set
    except KeyboardInterrupt as interrupt:
        if terminated.is_set():
            raise Terminated from interrupt
        raise
    finally:
        restore()


def stop_on_sigterm() -> None:
    """Make SIGTERM raise Terminated as Ctrl-C does, also in process 1 of a container."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
