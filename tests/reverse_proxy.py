"""A small reverse proxy, for tests of the service behind one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit


@contextmanager
def reverse_proxy(
    address: str, prefix: str, *, strips: bool, headers: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Show the server at `address` under a prefix; yields the proxy's own address.

    strips: whether the prefix is taken off the path. headers: added to every request.
    """

    class Handler(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            sent = {**dict(self.headers.items()), **(headers or {}), "Connection": "close"}
            server = HTTPConnection(urlsplit(address).netloc)
            server.request(
                self.command, self.path.removeprefix(prefix) if strips else self.path, body, sent
            )
            answer = server.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            server.close()

        do_GET = do_POST = _pass  # noqa: N815

        def log_message(self, format: str, *values: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        thread = Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}"
        finally:
            proxy.shutdown()
            thread.join()
