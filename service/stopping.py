"""How the process ends."""

import atexit
import os
import socket
import sys
import threading
from types import FrameType

import uvicorn

from hashsearch.stopping import status_of


class StoppingServer(uvicorn.Server):
    """A server that ends at once at a second signal, and in any case in bounded time.

    At the first signal it takes no new connection, finishes the requests that it has, and cuts
    them off after `timeout_graceful_shutdown` seconds. A request that still keeps a thread busy
    `after_s` seconds later is lost. Ending so harms no gallery; its files are made for it.

    status: with which the process ends if a thread is at work then. Where signals are ignored, as
    by nohup, they raise nothing.
    """

    def __init__(self, config: uvicorn.Config, after_s: float):
        super().__init__(config)
        self._after_s, self.status = after_s, 0

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the process is stopped. Raises KeyboardInterrupt after Ctrl-C."""
        try:
            super().run(sockets)
        except KeyboardInterrupt as interrupt:
            self.status = status_of(interrupt)
            raise
        finally:
            if _threads_run():
                atexit.register(lambda: _end(self.status))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)
        waits = (self.config.timeout_graceful_shutdown or 0) + self._after_s
        last = threading.Timer(waits, os._exit, [128 + sig])
        last.daemon = True
        last.start()


def _threads_run() -> bool:
    """Whether a thread is at work that nobody waits for, such as the one that loads the gallery.

    At its end, Python kills such a thread; if that happens within C++ code, the process aborts.
    """
    return any(
        thread.daemon and not isinstance(thread, threading.Timer)
        for thread in threading.enumerate()
    )


def _end(status: int) -> None:
    """End the process while threads are at work."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
