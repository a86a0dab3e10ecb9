"""Requests of the client to call, each with one deadline.

httpx2's timeouts are for each read and write: a server that sends a byte now and then would keep
a call waiting without end.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore2
import httpx2

from hashsearch.client.calls import Send

_PIECE_BYTES = 2**14  # that are written at a time: the backend's timeout is for each part of one

# What this thread sends; None while httpx2 closes connections.
_sent: ContextVar[Send | None] = ContextVar("sent", default=None)


@contextmanager
def answered_in_time(send: Send) -> Iterator[None]:
    """Within the block, connections of a timed transport fail once a request's time is over."""
    token = _sent.set(send)
    try:
        yield
    finally:
        _sent.reset(token)


def timed_transport(verify: ssl.SSLContext | bool) -> httpx2.HTTPTransport:
    """A transport whose timeouts are for the whole of what `answered_in_time` encloses."""
    transport = httpx2.HTTPTransport(verify=verify, trust_env=False)
    # httpx2 has no argument for it.
    transport._pool._network_backend = _TimedBackend()
    return transport


def _left(timeout: float | None, too_late: type[httpcore2.TimeoutException]) -> float | None:
    """The seconds left for what is sent. Raises `too_late` if there are none."""
    send = _sent.get()
    if send is None:
        return timeout
    if send.is_late:
        raise too_late
    return send.seconds_left


class _TimedBackend(httpcore2.SyncBackend):
    def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore2.NetworkStream:
        return _TimedStream(super().connect_tcp(*arguments, **options))


class _TimedStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream):
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE_BYTES):
            piece = buffer[start : start + _PIECE_BYTES]
            self._stream.write(piece, _left(timeout, httpcore2.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        left = _left(timeout, httpcore2.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
