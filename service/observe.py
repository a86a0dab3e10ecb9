"""What is seen of each request from outside: its id, its stages, a line in the log."""

import logging
import random
import re
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import internal_error
from service.stages import Stages

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # of a client; others are replaced

_log = logging.getLogger("service.requests")


class Observed:
    """An application whose every answer has a request id and the times of its stages."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, stages = _request_id(scope), Stages()
        scope.setdefault("state", {}).update(request_id=request_id, stages=stages)
        started, status = time.perf_counter(), 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if timing := stages.header():
                    headers["Server-Timing"] = timing
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception as error:  # a fault of the service
            _log.error("request %s failed", request_id, exc_info=error)
            if status:  # too late for another answer
                raise
            await internal_error(request_id)(scope, receive, send_observed)
        finally:
            _log.info(
                "%s %s %s",
                scope["method"],
                scope["path"],
                status or "no answer",
                extra={
                    "request_id": request_id,
                    "status": status,
                    "seconds": round(time.perf_counter() - started, 6),
                    "stages": stages.seconds,
                },
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(found := value.decode("latin-1")):
            return found
    return f"{random.getrandbits(128):032x}"  # uuid4 asks the system for each, which takes longer
