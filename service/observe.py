"""Request ids, stage times, log lines and metrics."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.limits import PROBES
from service.metrics import OTHER, Metrics
from service.problems import internal_error, stopping
from service.stages import Stages

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # of a client; others are replaced
_LONGEST = 512  # characters of a path or of a client's name for itself that are logged

# Of requests with a key, or that change the gallery.
_OF_WRITES = ("key", "added_ids", "held_ids", "removed", "removed_of_ids")

_log = logging.getLogger("service.requests")


class Observed:
    """An application whose every answer has a request id and the times of its stages.

    Nothing that may be secret is logged: no query string, no body, and of the headers only
    User-Agent and a well-formed X-Request-ID.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: Sequence[BaseRoute] = (),
        readable: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    ):
        """routes: of the application, for requests that are refused before they are routed.
        readable: lets pages of the allowed origins read an answer, here one to a failure.
        """
        self._app, self._metrics = app, metrics
        self._routes, self._readable = routes, readable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        one = _Observation(scope, receive, send)
        try:
            await self._app(scope, one.receive, one.send)
        except asyncio.CancelledError:  # the service stops, and waited as long as it does
            if one.status:  # too late for another answer; the server closes the connection
                return
            await self._readable(stopping(one.request_id))(scope, receive, one.send)
        except Exception as error:  # a fault of the service
            _log.error(
                "request %s failed",
                one.request_id,
                exc_info=error,
                extra={"fields": {"request_id": one.request_id}},
            )
            if one.status:
                raise
            await self._readable(internal_error(one.request_id))(scope, receive, one.send)
        finally:
            one.report(self._metrics, self._routes)


class _Observation:
    """One request: its id, its stages, and what is counted of it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send):
        self._scope, self._receive, self._send = scope, receive, send
        self._headers = Headers(scope=scope)
        self.request_id, self._stages = _request_id(self._headers), Stages()
        self._state = scope.setdefault("state", {})
        self._state.update(request_id=self.request_id, stages=self._stages)
        self._path = scope["path"]  # before a prefix is put before it
        self._started = time.perf_counter()
        self.status = 0  # until an answer is begun
        self._bytes_in = self._bytes_out = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            answered = MutableHeaders(scope=message)
            answered["X-Request-ID"] = self.request_id
            if timing := self._stages.header():
                answered["Server-Timing"] = timing
        self._bytes_out += len(message.get("body", b""))
        await self._send(message)

    def report(self, metrics: Metrics, routes: Sequence[BaseRoute]) -> None:
        """Count the request, and log it."""
        scope, stages = self._scope, self._stages.seconds
        seconds = time.perf_counter() - self._started
        route, code = _route(scope, routes), self._state.get("code")
        metrics.count_request(route, scope["method"], self.status, code, seconds, stages)
        fields = {
            "request_id": self.request_id,
            "method": scope["method"],
            "route": route,
            "path": self._path[:_LONGEST],
            "status": self.status or None,
            "code": code,
            **{name: self._state[name] for name in _OF_WRITES if name in self._state},
            "duration_ms": round(1000 * seconds, 3),
            "stages_ms": {name: round(1000 * s, 3) for name, s in stages.items()},
            "client": scope["client"][0] if scope.get("client") else None,
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
            "user_agent": self._headers.get("user-agent", "")[:_LONGEST],
        }
        _log.log(
            logging.DEBUG if route in PROBES else logging.INFO,
            "%s %s %s %.1f ms %s %s",
            fields["method"],
            fields["path"],
            f"{self.status} {code}" if code else self.status or "no answer",
            fields["duration_ms"],
            fields["client"],
            self.request_id,
            extra={"fields": fields},
        )


def _request_id(headers: Headers) -> str:
    found = headers.get("x-request-id", "")
    if _ID.fullmatch(found):
        return found
    return f"{random.getrandbits(128):032x}"  # uuid4 asks the system for each, which takes longer


def _route(scope: Scope, routes: Sequence[BaseRoute]) -> str:
    """The template of the path, without the prefix under which the service is reached."""
    if "router" not in scope:  # refused before it was routed, as by the rate limit
        for one in routes:
            match, found = one.matches(scope)
            if match is not Match.NONE:
                scope = {**scope, "route": None if isinstance(one, Mount) else one, **found}
                break
    if (route := scope.get("route")) is not None:
        return str(route.path)
    # Only a mounted application, such as the static files, made the prefix longer.
    if "app_root_path" in scope:
        return f"{scope['root_path'].removeprefix(scope['app_root_path'])}/{{path}}"
    return OTHER
