"""A running `hashsearch serve`, as tests of the whole process need it."""

import http.client
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from service.lanes import Lanes
from service.settings import Settings
from tests.forked import COMMAND, Forked

_START_S, _STOP_S = 120, 30
# The most threads that a service starts for requests.
LANE_THREADS = sum(lane.threads for lane in Lanes(Settings(gallery=Path())).all())


@dataclass
class Served:
    """A server process. log: the file of its messages."""

    port: int
    process: psutil.Process
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """The status, headers and body of an answer, over a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def memory_mb(self) -> float:
        return float(self.process.memory_info().rss / 2**20)

    def messages(self) -> str:
        return self.log.read_text(errors="replace")

    def settles(self, descriptors: int, threads: int, seconds: float = 20) -> bool:
        """Whether the process soon holds no more descriptors and threads than these."""
        until = time.monotonic() + seconds
        while self.process.num_fds() > descriptors or self.process.num_threads() > threads:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


@contextmanager
def serving_process(gallery: Path, log: Path, **settings: Any) -> Iterator[Served]:
    """Serve a gallery by a process until the end of the block.

    settings: by their names in `service.settings`; each is an environment variable.
    """
    variables = {f"HASHSEARCH_{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("wb") as messages:
        process = Forked(
            [COMMAND, "serve", "--gallery", gallery, "--port", "0"],
            stdout=messages,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
        )
    try:
        until = time.monotonic() + _START_S
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield Served(int(found[1]), psutil.Process(process.pid), log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
