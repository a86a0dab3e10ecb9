"""Headers that tell browsers what an answer may do, and caches that they ask again."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.caching import ASK_AGAIN

SECURITY_HEADERS = {
    # Swagger UI, at /docs, lives within this policy too. blob: shows the picture that is asked
    # for, data: those that come as base64.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": ASK_AGAIN,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
}


class SecurityHeaders:
    """An application whose every answer has SECURITY_HEADERS, unless a route sets others."""

    def __init__(self, app: ASGIApp, *, for_other_origins: bool):
        """for_other_origins: whether pages of other origins may show what is answered."""
        self._app, self._headers = app, dict(SECURITY_HEADERS)
        if for_other_origins:
            self._headers["Cross-Origin-Resource-Policy"] = "cross-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
