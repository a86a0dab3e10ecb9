"""Servers that the benchmark starts: the service, and a peer that answers without searching."""

import http.client
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

_START_S, _STOP_S = 300, 30  # given to a server


class Server(NamedTuple):
    """A server that runs. by: its name in the table. log: the file of its messages."""

    by: str
    port: int
    process: psutil.Process
    log: Path

    def cpu_s(self) -> float:
        """Seconds that it and its processes kept processors busy."""
        every = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:4]) for one in every)

    def last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def started(by: str, *arguments: str) -> Iterator[Server]:
    """Run a module of Python until the end of the block.

    The module prints the address that it listens at, as `hashsearch serve` does, and answers
    /readyz. Raises SystemExit if it ends before.
    """
    with tempfile.TemporaryDirectory(prefix="hashsearch-bench-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as messages:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdout=messages, stderr=subprocess.STDOUT
            )
        try:
            server = Server(by, 0, psutil.Process(process.pid), log)
            until = time.monotonic() + _START_S
            while not (server.port and _is_ready(server)):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{by} did not start:\n{server.last_lines()}")
                time.sleep(0.1)
                if address := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text()):
                    server = server._replace(port=int(address[1]))
            yield server
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def connected(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)


def _is_ready(server: Server) -> bool:
    connection = connected(server)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main(arguments: Sequence[str]) -> None:
    """Serve as the peer: read the body of a search, and answer with a file's JSON."""
    import socket

    import uvicorn
    from fastapi import FastAPI, Request, Response

    answer = Path(arguments[0]).read_bytes()
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/search")
    async def search(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio sets it for sockets alone that name their protocol, which these do not. Without it,
    # the end of an answer may wait 40 ms for the client to acknowledge its beginning.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(f"Serving on http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    uvicorn.Server(uvicorn.Config(app)).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1:])
