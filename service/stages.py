"""The stages of a request, and the time that it spent in each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# In the order of a request. Names are those of the header Server-Timing and of the metrics.
STAGES = {
    "wait": "waiting for a thread, and for a core to decode on",
    "decode": "from the file's bytes to a tiny image",
    "encode": "from tiny images to codes, waiting for the batch included",
    "search": "from codes to ids and distances",
    "catalog": "from ids to labels and uris",
}


class Stages:
    """Seconds of one request by stage. One thread at a time measures."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        assert stage in STAGES, stage
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def header(self) -> str:
        """The value of the header Server-Timing, in milliseconds; empty if nothing was measured."""
        return ", ".join(
            f"{stage};dur={1000 * self.seconds[stage]:.3f}"
            for stage in STAGES
            if stage in self.seconds
        )
