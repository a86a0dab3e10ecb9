"""Handling of Ctrl-C and SIGTERM by programs; the library takes over no signal by itself."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after Ctrl-C or SIGTERM; a second signal acts at once."""
    requested = threading.Event()
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
        restore()

    for number in handled:
        signal.signal(number, request)
    try:
        yield requested.is_set
    finally:
        restore()


def stop_on_sigterm() -> None:
    """Make SIGTERM raise KeyboardInterrupt as Ctrl-C does, also in process 1 of a container."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
