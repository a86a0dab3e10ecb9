"""What is seen of each request from outside: its id, its stages, a line in the log, its metrics."""

import asyncio
import logging
import random
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import OTHER, Metrics
from service.problems import internal_error, stopping
from service.stages import Stages

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # of a client; others are replaced
_QUIET = frozenset(("/livez", "/readyz", "/metrics"))  # requested by programs, every few seconds
_LONGEST = 512  # characters of a path or of a client's name for itself that are logged

_log = logging.getLogger("service.requests")


class Observed:
    """An application whose every answer has a request id and the times of its stages.

    Nothing that may be secret is logged: no query string, no body, and of the headers only
    User-Agent and a well-formed X-Request-ID.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id, stages = _request_id(headers), Stages()
        scope.setdefault("state", {}).update(request_id=request_id, stages=stages)
        prefix, started = scope.get("root_path", ""), time.perf_counter()
        status = bytes_in = bytes_out = 0

        async def receive_counted() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def send_observed(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered["X-Request-ID"] = request_id
                if timing := stages.header():
                    answered["Server-Timing"] = timing
            bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive_counted, send_observed)
        except asyncio.CancelledError:  # the service stops, and waited as long as it does
            if status:  # too late for another answer; the server closes the connection
                return
            await stopping(request_id)(scope, receive, send_observed)
        except Exception as error:  # a fault of the service
            _log.error(
                "request %s failed",
                request_id,
                exc_info=error,
                extra={"fields": {"request_id": request_id}},
            )
            if status:
                raise
            await internal_error(request_id)(scope, receive, send_observed)
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope, prefix)
            self._metrics.count_request(route, scope["method"], status, seconds, stages.seconds)
            fields = {
                "request_id": request_id,
                "method": scope["method"],
                "route": route,
                "path": scope["path"][:_LONGEST],
                "status": status or None,
                "duration_ms": round(1000 * seconds, 3),
                "stages_ms": {name: round(1000 * s, 3) for name, s in stages.seconds.items()},
                "client": scope["client"][0] if scope.get("client") else None,
                "bytes_in": bytes_in,
                "bytes_out": bytes_out,
                "user_agent": headers.get("user-agent", "")[:_LONGEST],
            }
            _log.log(
                logging.DEBUG if route in _QUIET else logging.INFO,
                "%s %s %s %.1f ms %s %s",
                fields["method"],
                fields["path"],
                status or "no answer",
                fields["duration_ms"],
                fields["client"],
                request_id,
                extra={"fields": fields},
            )


def _request_id(headers: Headers) -> str:
    found = headers.get("x-request-id", "")
    if _ID.fullmatch(found):
        return found
    return f"{random.getrandbits(128):032x}"  # uuid4 asks the system for each, which takes longer


def _route(scope: Scope, prefix: str) -> str:
    """The template of the path, without the prefix under which the service is reached."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    # A mounted application, such as the static files, was entered if the prefix became longer.
    mount = scope.get("root_path", "")[len(scope.get("app_root_path", prefix)) :]
    return f"{mount}/{{path}}" if mount else OTHER
