"""How the process ends."""

import os
import threading
from types import FrameType

import uvicorn

_AFTER_S = 1  # more, for the requests that were cut off to be answered


class StoppingServer(uvicorn.Server):
    """A server that ends at once at a second signal, and in any case in bounded time.

    At the first signal it takes no new connection, finishes the requests that it has, and cuts
    them off after `timeout_graceful_shutdown` seconds. A request that still keeps a thread busy
    a second later is lost. Ending so harms no gallery; its files are made for it.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)
        waits = (self.config.timeout_graceful_shutdown or 0) + _AFTER_S
        last = threading.Timer(waits, os._exit, [128 + sig])
        last.daemon = True
        last.start()
