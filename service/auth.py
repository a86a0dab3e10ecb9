"""API keys: who may write, and, where HASHSEARCH_KEY_FOR is `all`, who may read."""

import re
from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Unauthorized, WritesOff, problem_response
from service.proxies import path_of
from service.settings import InvalidSetting, Settings

_KEY = re.compile(r"[!-~]{16,}")  # visible ASCII
# What needs no key even if everything else does: the probes, and what shows no image.
_OPEN = re.compile(r"/(livez|readyz|docs|openapi\.json|static/.*|static-offline-docs/.*)")

BEARER = HTTPBearer(
    scheme_name="ApiKey",
    description="One of the keys in HASHSEARCH_API_KEYS.",
    auto_error=False,
)


class Keys:
    """The service's API keys, of which only SHA-256 digests are kept."""

    def __init__(self, keys: Iterable[str]):
        self._digests = [_digest(key) for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, key: str) -> int:
        """The number of a key, from 1: those of HASHSEARCH_API_KEYS, and then those of the file.

        It is compared with all keys, in a time that does not depend on how near it is.
        Raises Unauthorized.
        """
        digest = _digest(key)
        equal = [compare_digest(digest, known) for known in self._digests]
        number = max((number * same for number, same in enumerate(equal, 1)), default=0)
        if not number:
            raise Unauthorized("a valid API key is needed, in a header Authorization: Bearer <key>")
        return number


def _digest(key: str) -> bytes:
    return sha256(key.encode("latin-1", "replace")).digest()


def keys_of(settings: Settings) -> Keys:
    """The keys of HASHSEARCH_API_KEYS and of the file HASHSEARCH_API_KEYS_FILE.

    Raises InvalidSetting, which never shows a key.
    """
    found = _checked("api_keys", settings.api_keys.get_secret_value().split(","))
    if settings.api_keys_file is not None:
        name = "api_keys_file"
        try:
            lines = settings.api_keys_file.read_text("latin-1").splitlines()
        except OSError as error:
            raise InvalidSetting(name, f"the file cannot be read: {error.strerror}") from None
        in_file = _checked(name, [line for line in lines if not line.startswith("#")])
        if not in_file:
            raise InvalidSetting(name, "the file holds no key")
        found += in_file
    if settings.key_for == "all" and not found:
        raise InvalidSetting("key_for", "'all' needs a key, in HASHSEARCH_API_KEYS or its file")
    return Keys(found)


def _checked(name: str, texts: Iterable[str]) -> list[str]:
    keys = [text.strip() for text in texts if text.strip()]
    for number, key in enumerate(keys, 1):
        if not _KEY.fullmatch(key):
            raise InvalidSetting(
                name,
                "a key is at least 16 characters of visible ASCII, without spaces; "
                f"key {number} is not",
            )
    return keys


async def require_key(
    request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
) -> None:
    """Note the number of the key that was sent, for the log.

    Raises WritesOff if the service has no keys, Unauthorized if none of them was sent.
    """
    keys: Keys = request.app.state.keys
    if not keys:
        raise WritesOff(
            "this needs an API key, and the service has none; "
            "set HASHSEARCH_API_KEYS to switch writes on"
        )
    request.state.key = keys.check(sent.credentials if sent else "")


# For `dependencies=[WithKey]` of a route, which are called before its body is read.
WithKey = Depends(require_key)


def is_open(path: str) -> bool:
    """Whether a path needs no key even if everything else does."""
    return _OPEN.fullmatch(path) is not None


class KeyForAll:
    """An application of which all paths need a key, those that do not exist included."""

    def __init__(self, app: ASGIApp, keys: Keys):
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_open(path_of(scope)):
            scheme, key = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
            try:
                scope["state"]["key"] = self._keys.check(key if scheme.lower() == "bearer" else "")
            except Unauthorized as error:
                answer = problem_response(error, scope["state"]["request_id"])
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
