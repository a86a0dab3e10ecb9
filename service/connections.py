"""Connections over HTTP/1.1, each with limits on what a client may send and how long it takes."""

import logging
import time
from asyncio import TimerHandle, Transport
from typing import Any
from uuid import uuid4

from httptools import (
    HttpParserError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
)
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from hashsearch.errors import HashSearchError
from service.problems import HeaderTooLarge, MalformedRequest, problem_response

MOST_BYTES = 65_536  # of a header, or between two pieces of a body
_CHECKS = 4  # of a connection, in the time that it is given

_log = logging.getLogger("service.requests")


class Connection(HttpToolsProtocol):
    """Closes connections that uvicorn would keep open, and answers bad requests with problems.

    uvicorn ends a connection that is idle after an answer. It waits for ever for the first byte,
    for the rest of a header or of a body whose answer is sent, and for a client that does not read
    its answer; and it keeps headers of any size in memory.
    """

    time_s = 30.0  # for a header, for a body, and for the next part of an answer to be read

    def __init__(self, *arguments: Any, **others: Any):
        super().__init__(*arguments, **others)
        self._timer: TimerHandle | None = None
        self._receives_since: float | None = None  # None if no request is being received
        self._sends_since = 0.0  # when the client last read something, or there was nothing to read
        self._unsent = 0
        self._bytes = 0
        self._upgrades = False
        self._has_header = False  # of the request that is being received, whole
        self._at_work: RequestResponseCycle | None = None  # the first of those that are pipelined

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._receives_since = time.monotonic()
        self._check_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        # uvicorn does so with the last of pipelined requests alone.
        if self._at_work is not None and not self._at_work.response_complete:
            self._at_work.disconnected = True
            self._at_work.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._receives_since is None and not self._answers:  # not only when a request begins,
            self._receives_since = time.monotonic()  # since empty lines may come before
        try:
            self._parse(memoryview(data))
        except (HeaderTooLarge, MalformedRequest) as error:
            self._refuse(error)

    def _parse(self, data: memoryview) -> None:
        """Give the parser no more at a time than a header may still have.

        Raises HeaderTooLarge and MalformedRequest.
        """
        while data:
            piece = data[: MOST_BYTES - self._bytes]
            parsed, self._bytes = len(piece), self._bytes + len(piece)
            try:
                try:
                    self.parser.feed_data(piece)
                except HttpParserUpgrade as upgrade:
                    parsed = upgrade.args[0]
                    self._begin_without_upgrade()
            except HttpParserError as error:
                raise MalformedRequest(_wrong(error)) from None
            if self._bytes == MOST_BYTES:  # and the header or the line did not end
                raise HeaderTooLarge(f"the header is larger than {MOST_BYTES // 1024} kB")
            data = data[parsed:]

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_header = False
        self._receives_since = self._sends_since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_header:  # lines after a body could name a client that no proxy named
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_header = True
        self._upgrades = self.parser.should_upgrade()
        if not self._upgrades:
            self._receives_since = time.monotonic()
            super().on_headers_complete()
        self._bytes = 0

    def on_body(self, body: bytes) -> None:
        self._bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._upgrades:
            self._bytes, self._receives_since = 0, None
            super().on_message_complete()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sends_since = time.monotonic()

    @property
    def _answers(self) -> bool:
        """Whether a request is at work, or its answer is being sent."""
        return self._at_work is not None and not self._at_work.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def _begin_without_upgrade(self) -> None:
        """Begin a request that asks for another protocol as if it did not.

        The parser passes over the bodies of such requests; Java's client sends them.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise MalformedRequest("the service is no proxy")
        lines = [b"%b %b HTTP/1.1" % (method, self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")

    def _check_later(self) -> None:
        self._timer = self.loop.call_later(self.time_s / _CHECKS, self._check)

    def _check(self) -> None:
        now, unsent = time.monotonic(), self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._sends_since = now
        self._unsent = unsent
        if now - self._sends_since > self.time_s:
            self.transport.abort()  # since closing waits until everything is sent
            return
        since = self._receives_since
        if since is not None and now - since > self.time_s and not self._answers:
            self.transport.close()
        self._check_later()

    def _refuse(self, error: HashSearchError) -> None:
        """Answer with a problem and close the connection."""
        if self._at_work is not None and self._at_work.response_started and self._answers:
            self.transport.close()  # there is no place for another answer
            return
        request_id = uuid4().hex
        response = problem_response(error, request_id)
        response.headers["X-Request-ID"] = request_id
        lines = [b"%b: %b" % header for header in response.raw_headers]
        client, status = self.client[0] if self.client else None, response.status_code
        _log.info(
            "%d %s %s: %s",
            status,
            client,
            request_id,
            error,
            extra={"fields": {"request_id": request_id, "status": status, "client": client}},
        )
        head = STATUS_LINE[status] + b"\r\n".join(lines)
        self.transport.write(head + b"\r\nconnection: close\r\n\r\n" + bytes(response.body))
        self.transport.close()


def _wrong(error: HttpParserError) -> str:
    """A sentence about what the parser refuses."""
    if isinstance(error, HttpParserInvalidURLError):
        return "the address must be a percent-encoded path, such as /v1/images?label=%C3%A9t%C3%A9"
    return "this is not a request of HTTP/1.1"


def connections(time_s: float) -> type[Connection]:
    """The class of connections with so many seconds for a header, for a body, and for a client to
    read the next part of an answer."""
    return type("Connection", (Connection,), {"time_s": time_s})
